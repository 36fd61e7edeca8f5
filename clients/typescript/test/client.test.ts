// Against the API at WINDLASS_URL, as scripts/clients starts one.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";

import { createClient, type Problem } from "../src/index.js";

const url = process.env.WINDLASS_URL;
assert(url, "WINDLASS_URL is not set");
const client = createClient(url);
const body = { kind: "report.build", payload: { orders: "orders.csv", group_by: "region" } };

test("a job is enqueued once, awaited and listed", async () => {
  const label = randomUUID();
  const header = { "Idempotency-Key": randomUUID() };
  const request = { params: { header }, body: { ...body, labels: { run: label } } };
  const { data: accepted, response } = await client.POST("/v1/jobs", request);
  assert(accepted);
  assert.equal(response.status, 202);
  assert.equal(response.headers.get("location"), `/v1/jobs/${accepted.id}`);
  const again = await client.POST("/v1/jobs", request);
  assert.equal(again.data?.id, accepted.id);
  assert.equal(again.response.headers.get("idempotency-replayed"), "true");

  const path = { id: accepted.id };
  const { data: job } = await client.GET("/v1/jobs/{id}", { params: { path, query: { wait: "30s" } } });
  assert.equal(job?.state, "succeeded", JSON.stringify(job));
  const { data: result } = await client.GET("/v1/jobs/{id}/result", { params: { path } });
  assert.deepEqual(result, job?.result);
  const { data: list } = await client.GET("/v1/jobs", { params: { query: { label: [`run:${label}`], state: ["succeeded"] } } });
  assert.deepEqual(list?.jobs.map((listed) => listed.id), [accepted.id]);
});

test("a refusal is a problem", async () => {
  const { data, error, response } = await client.POST("/v1/jobs", { body: { ...body, max_attempts: 0 } });
  assert.equal(data, undefined);
  const problem: Problem | undefined = error;
  assert.equal(response.status, 422);
  assert.equal(problem?.type, "urn:windlass:problem:invalid-field");
  assert.deepEqual(problem?.errors?.map((wrong) => wrong.pointer), ["/max_attempts"]);
});
