"use strict";
(() => {
  const every = 15e3;
  const stale = document.getElementById("stale");
  // What the reader has changed, and the server does not know of.
  const own = (e, a) => a === "open" && e.localName === "details" || a === "checked" && e.localName === "input";

  // become makes the contents of a as those of b, and leaves alone what is the
  // same: focus, what is open, what is selected.
  function become(a, b) {
    if (a.nodeType !== 1) {
      if (a.data !== b.data) a.data = b.data;
      return;
    }
    for (const {name} of [...a.attributes]) if (!b.hasAttribute(name) && !own(a, name)) a.removeAttribute(name);
    for (const {name, value} of b.attributes) if (a.getAttribute(name) !== value && !own(a, name)) a.setAttribute(name, value);
    [...b.childNodes].forEach((want, i) => {
      let have = a.childNodes[i];
      if (want.id && (!have || have.id !== want.id)) {
        const moved = [...a.children].find(e => e.id === want.id);
        if (moved) have = a.insertBefore(moved, have || null);
      }
      if (have && have.nodeName === want.nodeName && (have.id || "") === (want.id || "")) become(have, want);
      else a.insertBefore(document.importNode(want, true), have || null);
    });
    while (a.childNodes.length > b.childNodes.length) a.lastChild.remove();
  }

  async function renew() {
    if (document.hidden) return;
    try {
      const answer = await fetch(location.href, {signal: AbortSignal.timeout(10e3)});
      if (!answer.ok) throw answer.status;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (page.querySelector("style").textContent !== document.querySelector("style").textContent) return location.reload();
      document.title = page.title;
      document.querySelector("link[rel=icon]").href = page.querySelector("link[rel=icon]").getAttribute("href");
      become(document.querySelector("main"), page.querySelector("main"));
      become(document.querySelector("footer"), page.querySelector("footer"));
      stale.hidden = true;
    } catch {
      stale.hidden = false;
    }
  }
  setInterval(renew, every);
  document.addEventListener("visibilitychange", renew);
})();
