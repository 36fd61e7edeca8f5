//! Files of JSON lines: what a run leaves, and what the checker reads.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead as _, BufReader, Write as _},
    path::Path,
};

use serde::{Serialize, de::DeserializeOwned};

/// A file that only grows. Each line is one write, so several tasks, and a process that is killed, leave whole lines.
#[derive(Debug)]
pub(crate) struct Lines(File);

impl Lines {
    pub(crate) fn append(path: &Path) -> io::Result<Self> {
        Ok(Self(OpenOptions::new().create(true).append(true).open(path)?))
    }

    pub(crate) fn write(&self, line: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        (&self.0).write_all(&text)
    }
}

/// All lines of a file; none, if it does not exist.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Vec<T>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut lines = Vec::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let read = serde_json::from_str(&line?).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{}:{}: {error}", path.display(), number + 1))
        })?;
        lines.push(read);
    }
    Ok(lines)
}
