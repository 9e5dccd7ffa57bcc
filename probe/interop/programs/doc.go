// Package programs asks servers that run as programs of their own: coturn for
// STUN and TURN, nginx for WebSocket behind a proxy and for transfers, caddy for
// HTTP/3. They must be installed (Debian: coturn, nginx, caddy); a test whose
// server is missing fails.
package programs
