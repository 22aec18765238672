// A headless browser's time stands still while it fetches: so it waits for the socket by fetching.
const found = { protocol: performance.getEntriesByType("navigation")[0].nextHopProtocol };
const socket = new WebSocket(`wss://${location.host}/_conformance/ws`);
socket.onopen = () => socket.send("grüße");
socket.onmessage = (message) => {
  found.extensions = socket.extensions;
  found.echo = message.data;
};
socket.onerror = () => {
  found.echo = "failed";
};
do {
  found.health = (await (await fetch("/health")).json()).status;
} while (!found.echo);
document.body.textContent = JSON.stringify(found);
