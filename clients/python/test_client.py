"""Against the API at WINDLASS_URL, as scripts/clients starts one."""

import os
import unittest
import uuid

from windlass_client import Client
from windlass_client.api.jobs import enqueue_job, get_job, get_result, list_jobs
from windlass_client.models import Job, JobList, NewJob, Problem


def report(**more) -> NewJob:
    payload = {"orders": "orders.csv", "group_by": "region"}
    return NewJob.from_dict({"kind": "report.build", "payload": payload, **more})


class ClientTest(unittest.TestCase):
    def setUp(self):
        self.client = Client(base_url=os.environ["WINDLASS_URL"], timeout=40)

    def test_a_job_is_enqueued_once_awaited_and_listed(self):
        label = str(uuid.uuid4())
        key = str(uuid.uuid4())
        body = report(labels={"run": label})
        accepted = enqueue_job.sync_detailed(client=self.client, body=body, idempotency_key=key)
        self.assertEqual(accepted.status_code, 202)
        self.assertIsInstance(accepted.parsed, Job)
        id = accepted.parsed.id
        self.assertEqual(accepted.headers["location"], f"/v1/jobs/{id}")
        again = enqueue_job.sync_detailed(client=self.client, body=body, idempotency_key=key)
        self.assertEqual(again.parsed.id, id)
        self.assertEqual(again.headers["idempotency-replayed"], "true")

        job = get_job.sync(id, client=self.client, wait="30s")
        self.assertIsInstance(job, Job)
        self.assertEqual(job.state, "succeeded", job)
        self.assertIsNotNone(job.finished_at)
        self.assertEqual(get_result.sync(id, client=self.client), job.result)
        found = list_jobs.sync(client=self.client, label=[f"run:{label}"], state=["succeeded"])
        self.assertIsInstance(found, JobList)
        self.assertEqual([listed.id for listed in found.jobs], [id])

    def test_a_refusal_is_a_problem(self):
        refused = enqueue_job.sync_detailed(client=self.client, body=report(max_attempts=0))
        self.assertEqual(refused.status_code, 422)
        self.assertIsInstance(refused.parsed, Problem)
        self.assertEqual(refused.parsed.type_, "urn:windlass:problem:invalid-field")
        self.assertEqual([wrong.pointer for wrong in refused.parsed.errors], ["/max_attempts"])


if __name__ == "__main__":
    unittest.main()
