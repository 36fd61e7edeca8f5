//! What the clients saw: every request and its answer, with the times of both.

use std::{io, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    clock::Instant,
    jobs::{PAY, Told, WORK},
    lines::Lines,
};

/// The queue of all jobs.
pub(crate) const QUEUE: &str = "torture";
/// The limit that some jobs name, each with a key of its own.
pub(crate) const LIMIT: &str = "torture";
/// How many jobs of one key of it may run at a time.
pub(crate) const MAX_RUNNING: usize = 2;

/// A job that a client wants.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Wish {
    /// Its name in the checker's eyes, and part of the payload: no two wishes have the same.
    pub(crate) tag: String,
    /// Whether its effect is written in the transaction that completes it.
    pub(crate) transactional: bool,
    pub(crate) max_attempts: u32,
    pub(crate) told: Told,
    /// In the form that only workers of a new version read.
    #[serde(default)]
    pub(crate) new: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) delay_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unique: Option<String>,
    /// The ordering key, and the place in the order in which one client has enqueued its jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) order: Option<(String, u64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<String>,
    /// The tags of its parents in a workflow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) after: Vec<String>,
}

impl Wish {
    pub(crate) fn kind(&self) -> &'static str {
        if self.transactional { PAY } else { WORK }
    }

    /// The body of a request for it.
    pub(crate) fn body(&self) -> Value {
        let mut payload = if self.new { json!({"told": self.told}) } else { json!(self.told) };
        payload["tag"] = json!(self.tag);
        let mut body = json!({"kind": self.kind(), "queue": QUEUE, "payload": payload, "max_attempts": self.max_attempts});
        if self.new {
            body["version"] = json!(2);
        }
        if let Some(delay) = self.delay_ms {
            body["delay"] = json!(format!("{delay}ms"));
        }
        if let Some(key) = &self.unique {
            body["unique"] = json!({"key": key});
        }
        if let Some((key, _)) = &self.order {
            body["ordering_key"] = json!(key);
        }
        if let Some(key) = &self.limit {
            body["limits"] = json!([format!("{LIMIT}/{key}")]);
        }
        body
    }
}

/// What was asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    Enqueue {
        wish: Wish,
        key: Option<String>,
    },
    /// Another job under a key that a job has been accepted under: to be refused.
    Conflict {
        wish: Wish,
        key: String,
    },
    Batch {
        wishes: Vec<Wish>,
        key: String,
    },
    Workflow {
        wishes: Vec<Wish>,
        key: String,
    },
    Get {
        id: Uuid,
    },
    List {
        ids: Vec<Uuid>,
    },
    Cancel {
        id: Uuid,
    },
}

impl Request {
    /// The jobs it would make.
    pub(crate) fn wishes(&self) -> &[Wish] {
        match self {
            Self::Enqueue { wish, .. } | Self::Conflict { wish, .. } => std::slice::from_ref(wish),
            Self::Batch { wishes, .. } | Self::Workflow { wishes, .. } => wishes,
            Self::Get { .. } | Self::List { .. } | Self::Cancel { .. } => &[],
        }
    }
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// 2xx. For enqueues, the jobs are in the order of the wishes; `None` is one that was refused by itself.
    Done {
        status: u16,
        jobs: Vec<Option<Seen>>,
        /// Another job has the unique key, and this is it.
        #[serde(default)]
        existing: bool,
        /// The key has been used before, and this is what it was used for.
        #[serde(default)]
        replayed: bool,
    },
    /// Any other status.
    Refused { status: u16, problem: String },
    /// None came, or not all of it.
    Unknown { error: String },
}

/// A job as an answer shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) id: Uuid,
    /// Entries of a batch's answer have no more than the id.
    #[serde(default)]
    pub(crate) state: Option<String>,
    #[serde(default)]
    pub(crate) attempt: u32,
    #[serde(default)]
    pub(crate) kind: Option<String>,
    #[serde(default)]
    pub(crate) max_attempts: Option<u32>,
    /// The run that its result names.
    #[serde(default)]
    pub(crate) run: Option<Uuid>,
}

/// A request and its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Call {
    pub(crate) sent: Instant,
    pub(crate) received: Instant,
    pub(crate) api: usize,
    pub(crate) request: Request,
    pub(crate) answer: Answer,
}

/// What an enqueue's answer says of whether it was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accepted,
    /// It certainly made nothing.
    Refused,
    /// It may have been.
    Unknown,
}

impl Call {
    pub(crate) fn verdict(&self) -> Verdict {
        match &self.answer {
            Answer::Done { .. } => Verdict::Accepted,
            Answer::Unknown { .. } => Verdict::Unknown,
            // A request that was cut short, and everything of the server's own doing, may have happened, unless the answer
            // says that it has not.
            Answer::Refused { status, problem } => match status {
                408 | 500.. if !problem.contains("nothing was stored") => Verdict::Unknown,
                _ => Verdict::Refused,
            },
        }
    }

    /// The jobs that the answer shows.
    pub(crate) fn seen(&self) -> impl Iterator<Item = &Seen> {
        let jobs: &[Option<Seen>] = match &self.answer {
            Answer::Done { jobs, .. } => jobs,
            _ => &[],
        };
        jobs.iter().flatten()
    }

    /// Each wish that was accepted, with the job that the answer gives for it, unless that is an older one.
    pub(crate) fn accepted(&self) -> impl Iterator<Item = (&Wish, &Seen)> {
        let jobs: &[Option<Seen>] = match &self.answer {
            Answer::Done { jobs, existing: false, .. } => jobs,
            _ => &[],
        };
        self.request.wishes().iter().zip(jobs).filter_map(|(wish, job)| Some((wish, job.as_ref()?)))
    }
}

/// The file of all calls.
#[derive(Debug)]
pub(crate) struct History(Lines);

impl History {
    pub(crate) const FILE: &'static str = "history.jsonl";

    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        Lines::append(&folder.join(Self::FILE)).map(Self)
    }

    pub(crate) fn note(&self, call: &Call) {
        if let Err(error) = self.0.write(call) {
            // Without a history nothing can be checked.
            eprintln!("the history cannot be written: {error}");
            std::process::exit(2);
        }
    }
}
