// A client of dspex.v1, made from dspex.proto alone: values are MessagePack, errors are [code, sentence, facts].

const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");
const { encode, decode } = require("@msgpack/msgpack");

const PROTO = path.join(__dirname, "../../../dspex/rpc/dspex.proto");
const definition = loader.loadSync(process.env.DSPEX_PROTO || PROTO, { keepCase: true, longs: Number, oneofs: true, defaults: true });
const { Sessions } = grpc.loadPackageDefinition(definition).dspex.v1;

class Refused extends Error {
  constructor(data) {
    const [code, sentence, facts] = decode(data);
    super(sentence);
    Object.assign(this, facts, { code });
  }
}

// Integers of a JavaScript number stay integers: 1.0 for a float variable is 1, which its kind takes.
class Session {
  constructor(address, id, token) {
    this.id = id;
    this.client = new Sessions(address, grpc.credentials.createInsecure());
    this.metadata = new grpc.Metadata();
    if (token) this.metadata.set("authorization", `Bearer ${token}`);
  }

  call(method, request) {
    return new Promise((resolve, reject) => {
      const options = { deadline: Date.now() + 5000 };
      this.client[method]({ session: this.id, ...request }, this.metadata, options, (error, reply) => {
        if (!error) return resolve(reply);
        const [data] = error.metadata ? error.metadata.get("dspex-error-bin") : [];
        reject(data ? new Refused(data) : error);
      });
    });
  }

  // { value, version } of one variable.
  async get(name) {
    const reply = await this.call("Snapshot", { names: [name] });
    if (reply.records.length) return { value: decode(reply.records[0].value), version: reply.records[0].version };
    const [, , initial] = decode(reply.declarations[0]);
    return { value: initial, version: 0 };
  }

  // Sets one variable, if it is at that version; the change that was made.
  async set(name, value, { expect, source = "node" } = {}) {
    const write = { name, value: encode(value), ...(expect === undefined ? {} : { expect }) };
    const op = `node-${process.pid}-${Date.now()}-${Math.random()}`;
    const reply = await this.call("Commit", { writes: [write], source, op });
    return reply.changes[0];
  }

  // Calls told(name, value, change) for every change from now on; returns a function that ends it.
  watch(told, ready = () => {}) {
    const stream = this.client.Subscribe({ session: this.id }, this.metadata);
    stream.on("data", ({ items }) => {
      for (const item of items) {
        if (item.what === "opened" && !item.opened.more) ready();
        if (item.what !== "event") continue;
        for (const change of item.event.changes) told(change.name, decode(change.value), change);
      }
    });
    stream.on("error", (error) => {
      if (error.code !== grpc.status.CANCELLED) throw error;
    });
    return () => stream.cancel();
  }

  close() {
    this.client.close();
  }
}

module.exports = { Session, Refused };
