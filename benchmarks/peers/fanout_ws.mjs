// The npm package ws in the place of benchmarks/peers/fanout_servers.py: node fanout_ws.mjs PIPE

import { createRequire } from "node:module";
import { Socket } from "node:net";

const require = createRequire(process.cwd() + "/");
const { WebSocketServer } = require("ws");

const groups = new Map();
const server = new WebSocketServer({
  host: "127.0.0.1",
  port: 0,
  backlog: 1024,
  perMessageDeflate: false,
});

server.on("connection", (socket) => {
  let mine = [];
  socket.on("error", () => {});
  socket.on("message", (data) => {
    mine = [...data.toString().matchAll(/"A(\d+)-USD"/g)].map((found) => Number(found[1]));
    for (const number of mine) {
      if (!groups.has(number)) groups.set(number, new Set());
      groups.get(number).add(socket);
    }
    socket.send('{"type":"subscribed"}');
  });
  socket.on("close", () => {
    for (const number of mine) groups.get(number).delete(socket);
  });
});

server.on("listening", () => console.log(server.address().port));

let rest = Buffer.alloc(0);
new Socket({ fd: Number(process.argv[2]) }).on("data", (data) => {
  rest = rest.length ? Buffer.concat([rest, data]) : data;
  for (let end; (end = rest.indexOf(10)) >= 0; rest = rest.subarray(end + 1)) {
    const tab = rest.indexOf(9);
    const text = rest.subarray(tab + 1, end);
    const sockets = groups.get(Number(rest.subarray(0, tab).toString()));
    if (sockets) for (const socket of sockets) socket.send(text, { binary: false });
  }
});

process.on("SIGTERM", () => process.exit(0));
