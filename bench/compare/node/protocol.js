// What the peers in JavaScript have in common: see "The protocol" in ../README.md.

import { Worker, isMainThread, parentPort, workerData } from "node:worker_threads";

const PAYLOAD_BYTES = 200;
const BATCH = 1000;

/** Microseconds since 1970. */
const now = () => Math.round((performance.timeOrigin + performance.now()) * 1000);
const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const answer = (value) => process.stdout.write(JSON.stringify(value) + "\n");

/** The payload, 200 bytes as JSON. */
function payload(job) {
  const bare = { job, sent: now(), pad: "" };
  return { ...bare, pad: "x".repeat(PAYLOAD_BYTES - JSON.stringify(bare).length) };
}

export function variable(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set`);
  return value;
}

/**
 * Does what the arguments ask for, with the peer's
 *
 * - `threads`, each of which runs a worker: one uses one core,
 * - `prepare()`, which makes the tables, in a database of its own,
 * - `producer()`, for an `enqueue(payloads)` and a `close()`,
 * - `work(record)`, which starts a worker that calls `record(payload)` for each run of a job, for an `unfinished()`, which
 *   says whether any job is left whose outcome is not recorded, a `kept()`, which counts the jobs that are over and still
 *   known, and a `stop()`.
 */
export async function main(peer) {
  if (!isMainThread) return workBeside(peer);
  const [command, ...rest] = process.argv.slice(2);
  const numbers = rest.map(count);
  if (command === "prepare" && numbers.length === 0) await peer.prepare();
  else if (command === "enqueue" && numbers.length === 2) await enqueue(peer, ...numbers);
  else if (command === "work" && numbers.length === 1) await work(peer, ...numbers);
  else throw new Error("usage: prepare | enqueue JOBS RATE | work JOBS");
}

function count(text) {
  if (!/^\d+$/.test(text)) throw new Error(`"${text}" is not a count`);
  return Number(text);
}

async function enqueue(peer, jobs, rate) {
  const producer = await peer.producer();
  const began = now();
  const size = rate > 0 ? 1 : BATCH;
  for (let first = 0; first < jobs; first += size) {
    if (rate > 0) {
      const wait = (began - now()) / 1000 + (first * 1000) / rate;
      if (wait > 0) await sleep(wait);
    }
    const group = [];
    for (let job = first; job < Math.min(first + size, jobs); job++) group.push(payload(job));
    await producer.enqueue(group);
  }
  answer({ began, ended: now() });
  await producer.close();
}

async function work(peer, jobs) {
  const tally = new Tally(Tally.memory(jobs));
  const others = Array.from({ length: peer.threads - 1 }, () => new Thread(tally.memory));
  const worker = await peer.work((job) => tally.record(job));
  await Promise.all(others.map((other) => other.ready));
  answer({ ready: true });
  while (tally.distinct < jobs) await sleep(2);
  while (await worker.unfinished()) await sleep(10);
  answer({ ...tally.result(now()), kept: await worker.kept() });
  // Until it is closed, the memory of this process is looked at.
  for await (const _ of process.stdin);
  await Promise.all([worker.stop(), ...others.map((other) => other.stop())]);
}

/** A thread with a worker of its own, as the one that starts it sees it. */
class Thread {
  constructor(memory) {
    this.thread = new Worker(process.argv[1], { workerData: memory });
    this.ready = new Promise((resolve) => this.thread.once("message", resolve));
    this.ended = new Promise((resolve) => this.thread.once("exit", resolve));
    this.thread.once("error", (error) => {
      throw error;
    });
  }

  async stop() {
    this.thread.postMessage("stop");
    await this.ended;
  }
}

async function workBeside(peer) {
  const tally = new Tally(workerData);
  const worker = await peer.work((job) => tally.record(job));
  parentPort.postMessage("ready");
  await new Promise((resolve) => parentPort.once("message", resolve));
  await worker.stop();
}

/** What has run, in memory that all threads share. */
class Tally {
  static memory(jobs) {
    return {
      runs: new SharedArrayBuffer(jobs * 4),
      distinct: new SharedArrayBuffer(4),
      started: new SharedArrayBuffer(jobs * 8),
      latency: new SharedArrayBuffer(jobs * 8),
    };
  }

  constructor(memory) {
    this.memory = memory;
    this.runs = new Int32Array(memory.runs);
    this.counted = new Int32Array(memory.distinct);
    this.started = new Float64Array(memory.started);
    this.latency = new Float64Array(memory.latency);
  }

  record({ job, sent }) {
    const at = now();
    if (Atomics.add(this.runs, job, 1) !== 0) return;
    this.started[job] = at;
    this.latency[job] = at - sent;
    Atomics.add(this.counted, 0, 1);
  }

  get distinct() {
    return Atomics.load(this.counted, 0);
  }

  result(finished) {
    const [started, latency] = [this.started.toSorted(), this.latency.toSorted()];
    return {
      first: started[0],
      last: started.at(-1),
      finished,
      runs: this.runs.reduce((sum, runs) => sum + runs, 0),
      p50: latency[Math.floor(latency.length / 2)],
      p99: latency[Math.floor((latency.length * 99) / 100)],
    };
  }
}
