// Graphile Worker on Postgres.

import { Logger, makeWorkerUtils, run, runMigrations } from "graphile-worker";
import pg from "pg";

import { main, variable } from "./protocol.js";

const connectionString = variable("DATABASE_URL");
const IDENTIFIER = "compare";

const logger = new Logger(() => (level, message) => {
  if (level === "error" || level === "warning") console.error(message);
});

// Those of its performance page, and the delay between fetches of its own performance test.
const preset = {
  worker: {
    connectionString,
    concurrentJobs: 24,
    maxPoolSize: 25,
    localQueue: { size: 500, refetchDelay: { durationMs: 10 } },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
    logger,
  },
};

await main({
  threads: Number(variable("THREADS")),

  prepare: () => runMigrations({ preset }),

  async producer() {
    const utils = await makeWorkerUtils({ preset });
    return {
      enqueue: (payloads) =>
        payloads.length === 1
          ? utils.addJob(IDENTIFIER, payloads[0])
          : utils.addJobs(payloads.map((payload) => ({ identifier: IDENTIFIER, payload }))),
      close: () => utils.release(),
    };
  },

  async work(record) {
    const runner = await run({ preset, taskList: { [IDENTIFIER]: record }, noHandleSignals: true });
    const client = new pg.Client({ connectionString });
    await client.connect();
    const one = async (statement) => (await client.query(statement)).rows[0].one;
    return {
      // What has succeeded is deleted.
      unfinished: () => one("SELECT EXISTS (SELECT FROM graphile_worker._private_jobs) AS one"),
      kept: () => one("SELECT count(*)::int AS one FROM graphile_worker._private_jobs"),
      async stop() {
        await client.end();
        await runner.stop();
      },
    };
  },
});
