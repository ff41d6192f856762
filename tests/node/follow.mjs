// Follows one book with the npm package ws, by docs/stream.md alone, and prints it at each event:
//   node follow.mjs URL EXCHANGE SYMBOL
// One JSON object a line: {"version": .., "bids": {price: volume}, "asks": {..}}.
import WebSocket from "ws";

const [url, exchange, symbol] = process.argv.slice(2);
const socket = new WebSocket(url);
let book = {bid: new Map(), ask: new Map()};
let version = null;

socket.on("open", () => socket.send(JSON.stringify({
  type: "subscribe", channels: ["orderbook", "state"], exchanges: [exchange], symbols: [symbol], depth: "full",
})));
socket.on("message", (text, isBinary) => {
  if (isBinary) throw new Error("a binary message, unasked for");
  const {type, data, message} = JSON.parse(text);
  if (type === "error") throw new Error(message);
  if (type === "orderbook_snapshot") {
    if (data.part === 1) book = {bid: new Map(), ask: new Map()};
    for (const [price, volume] of data.bids) book.bid.set(price, volume);
    for (const [price, volume] of data.asks) book.ask.set(price, volume);
    if (data.part < data.parts) return;
  } else if (type === "orderbook_delta") {
    if (data.prev_version !== version) throw new Error(`${data.prev_version} after ${version}`);
    for (const {side, price, volume, action} of data.changes) {
      if (action === "remove") book[side].delete(price);
      else book[side].set(price, volume);
    }
  } else {
    return;
  }
  version = data.version;
  const {bid, ask} = book;
  console.log(JSON.stringify({
    version, bids: Object.fromEntries(bid), asks: Object.fromEntries(ask),
  }));
});
socket.on("close", (code) => process.exit(code === 1001 ? 0 : 1));
socket.on("error", (error) => { throw error; });
