//! What was done to whom, and what became of the processes: a file for the checker, and lines for who watches.

use std::{io, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    clock::{self, Instant},
    lines::Lines,
};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) t: Instant,
    #[serde(flatten)]
    pub(crate) event: Event,
}

/// One *life* is a process from its start to its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub(crate) enum Event {
    Spawned {
        process: String,
        life: u32,
        pid: u32,
    },
    Frozen {
        life: u32,
    },
    Thawed {
        life: u32,
    },
    Died {
        life: u32,
        how: String,
    },
    /// A fault has been done, or is about to begin.
    Begun {
        fault: usize,
        what: String,
        kind: String,
        target: String,
        isolated: bool,
    },
    /// A server that was down answers again.
    Ready {
        fault: usize,
    },
    /// All is as before.
    Over {
        fault: usize,
    },
    /// It could not be done here.
    Omitted {
        fault: usize,
        why: String,
    },
    Note {
        text: String,
    },
}

/// The file of all that happened.
#[derive(Debug)]
pub(crate) struct Journal {
    lines: Lines,
    started: Instant,
}

impl Journal {
    pub(crate) const FILE: &'static str = "journal.jsonl";

    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        Ok(Self { lines: Lines::append(&folder.join(Self::FILE))?, started: clock::now() })
    }

    pub(crate) fn note(&self, event: Event) {
        self.note_at(clock::now(), event);
    }

    pub(crate) fn say(&self, text: impl Into<String>) {
        self.note(Event::Note { text: text.into() });
    }

    fn note_at(&self, t: Instant, event: Event) {
        let told = match &event {
            Event::Spawned { process, pid, .. } => format!("{process} starts (pid {pid})"),
            Event::Frozen { .. } | Event::Thawed { .. } => String::new(),
            Event::Died { life, how } => format!("life {life} has ended: {how}"),
            Event::Begun { fault, what, .. } => format!("#{fault} {what}"),
            Event::Ready { fault } => format!("#{fault} is ready again"),
            Event::Over { fault } => format!("#{fault} is over"),
            Event::Omitted { fault, why } => format!("#{fault} is left out: {why}"),
            Event::Note { text } => text.clone(),
        };
        if !told.is_empty() {
            println!("{:8.2} s  {told}", clock::seconds_between(self.started, t));
        }
        if let Err(error) = self.lines.write(&Entry { t, event }) {
            eprintln!("the journal cannot be written: {error}");
            std::process::exit(2);
        }
    }
}
