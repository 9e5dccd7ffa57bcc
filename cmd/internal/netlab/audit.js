// What is wrong with the page that is shown, as far as a program can tell: the
// rules of WCAG 2.2 AA that matter to it. A list of sentences, empty if nothing.
(() => {
  const problems = [];
  const problem = (e, what) => problems.push(`${e.localName}${e.id ? "#" + e.id : ""}.${e.getAttribute("class") || ""} "${(e.textContent || "").trim().slice(0, 40)}": ${what}`);
  const seen = e => e.checkVisibility({opacityProperty: true, visibilityProperty: true, contentVisibilityAuto: true});

  // 1.4.3 and 1.4.11: contrast.
  const parse = s => {
    const m = /rgba?\(([^)]*)\)/.exec(s);
    if (!m) return null;
    const [r, g, b, a = 1] = m[1].split(/[\s,/]+/).map(Number);
    return [r, g, b, a];
  };
  const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const ground = e => {
    const layers = [];
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c && c[3] > 0) layers.push(c);
      if (c && c[3] === 1) break;
    }
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
  };
  const light = c => {
    const [r, g, b] = c.slice(0, 3).map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => {
    const [x, y] = [light(a), light(b)].sort((x, y) => y - x);
    return (x + 0.05) / (y + 0.05);
  };
  const contrast = (e, colour, want, what) => {
    const below = ground(e);
    const c = parse(colour);
    if (!c) return problem(e, `${what} has the colour ${colour}`);
    const r = ratio(over(c, below), below);
    if (r < want) problem(e, `${what} has a contrast of ${r.toFixed(2)}, not ${want}`);
  };
  let texts = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let n; n = walker.nextNode();) {
    const e = n.parentElement;
    if (!n.data.trim() || ["SCRIPT", "STYLE", "NOSCRIPT"].includes(e.tagName) || !seen(e) || e.getBoundingClientRect().width <= 1) continue;
    const s = getComputedStyle(e), size = parseFloat(s.fontSize);
    texts++;
    contrast(e, s.color, size >= 24 || size >= 18.66 && s.fontWeight >= 700 ? 3 : 4.5, "text");
    if (size < 12) problem(e, `text of ${size} px`);
  }
  if (texts < 30) problems.push(`only ${texts} texts`);
  for (const e of document.querySelectorAll("svg.icon")) if (seen(e)) contrast(e, getComputedStyle(e).color, 3, "icon");
  for (const e of document.querySelectorAll(".spark path")) if (seen(e)) contrast(e, getComputedStyle(e).stroke, 3, "line");
  for (const e of document.querySelectorAll(".strip label")) {
    const s = getComputedStyle(e, "::before");
    contrast(e, s.backgroundImage === "none" ? s.backgroundColor : s.backgroundImage, 3, "cell");
  }

  // 1.4.10: nothing is wider than the window.
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > width) problems.push(`${document.documentElement.scrollWidth} px wide in a window of ${width}`);
  for (const e of document.body.querySelectorAll("*")) {
    const r = e.getBoundingClientRect();
    if (seen(e) && r.width > 1 && (r.right > width + 0.5 || r.left < -0.5)) problem(e, `from ${r.left} to ${r.right} in a window of ${width}`);
  }

  // 1.3.1, 2.4.6: headings, landmarks, lists.
  let level = 0;
  for (const h of document.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
    const l = Number(h.localName[1]);
    if (l > level + 1) problem(h, `follows a heading of level ${level}`);
    level = l;
  }
  if (document.querySelectorAll("h1").length !== 1) problems.push("not one h1");
  if (document.querySelectorAll("main").length !== 1) problems.push("not one main");
  for (const e of document.querySelectorAll("ul, ol")) {
    for (const c of e.children) if (c.localName !== "li") problem(c, `stands in a list`);
  }
  for (const e of document.querySelectorAll("dl")) {
    for (const c of e.children) if (c.localName !== "div" || !c.querySelector(":scope > dt") || !c.querySelector(":scope > dd")) problem(c, "stands in a list of terms");
  }
  const ids = {};
  for (const e of document.querySelectorAll("[id]")) if (ids[e.id]++) problem(e, "its id is not its own"); else ids[e.id] = 1;
  for (const e of document.querySelectorAll("[aria-labelledby]")) if (!document.getElementById(e.getAttribute("aria-labelledby"))) problem(e, "is named by nothing");

  // 1.1.1: pictures have a name or are none.
  for (const e of document.querySelectorAll("svg")) {
    if (e.getAttribute("role") === "img" ? !e.getAttribute("aria-label") : !e.closest("[aria-hidden=true]")) problem(e, "a picture without a name");
  }

  // 2.5.8: what is pressed is large enough, links in sentences apart.
  for (const e of document.querySelectorAll("a, summary, button")) {
    if (!seen(e) || e.closest("footer p") || e.className === "skip") continue;
    const r = e.getBoundingClientRect();
    if (r.height < 24 || r.width < 24) problem(e, `${r.width} by ${r.height} px`);
  }
  return problems;
})()
