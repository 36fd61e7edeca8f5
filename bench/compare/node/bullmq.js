// BullMQ on Redis.

import { Queue, Worker } from "bullmq";
import { Redis } from "ioredis";

import { main, variable } from "./protocol.js";

const NAME = "compare";
const connect = () => new Redis(variable("REDIS_URL"), { maxRetriesPerRequest: null });

await main({
  threads: Number(variable("THREADS")),

  prepare: async () => {},

  async producer() {
    const connection = connect();
    const queue = new Queue(NAME, { connection });
    await queue.waitUntilReady();
    return {
      enqueue: (payloads) =>
        payloads.length === 1
          ? queue.add(NAME, payloads[0])
          : queue.addBulk(payloads.map((data) => ({ name: NAME, data }))),
      async close() {
        await queue.close();
        connection.disconnect();
      },
    };
  },

  async work(record) {
    const connection = connect();
    const queue = new Queue(NAME, { connection });
    const worker = new Worker(NAME, async (job) => record(job.data), {
      connection,
      concurrency: 100,
      // As its guide for production has it: what succeeded is not kept.
      removeOnComplete: { count: 0 },
    });
    worker.on("error", (error) => console.error(error));
    await worker.waitUntilReady();
    return {
      unfinished: async () => (await queue.getJobCountByTypes("wait", "active", "delayed", "prioritized")) > 0,
      kept: () => queue.getCompletedCount(),
      async stop() {
        await worker.close();
        await queue.close();
        connection.disconnect();
      },
    };
  },
});
