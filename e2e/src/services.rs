use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Servers of one's own, to be stopped, killed and wiped: what `scripts/services` does in a folder. They are taken down
/// when dropped.
#[derive(Debug)]
pub struct Services {
    folder: PathBuf,
}

/// Why `scripts/services` did not do as told.
#[derive(Debug, thiserror::Error)]
pub enum ServicesError {
    /// It could not be run.
    #[error("scripts/services could not be run: {0}")]
    Io(#[from] io::Error),
    /// It failed.
    #[error("scripts/services {action} {name} failed; its last words: {words}")]
    Failed {
        /// What it was told.
        action: String,
        /// To which server.
        name: String,
        /// The end of what it wrote.
        words: String,
    },
    /// It did not say where the server is.
    #[error("scripts/services up {0} printed no URL")]
    NoUrl(String),
}

impl Services {
    /// Those of `folder`, which is made where it is missing.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Starts the server unless it runs, and answers its URL.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn up(&self, name: &str, environment: &[(&str, &str)]) -> Result<String, ServicesError> {
        let lines = self.run("up", name, environment).await?;
        let variable = format!("WINDLASS_TEST_{}_URL='", name.to_uppercase());
        let url = lines.split_once(&variable).and_then(|(_, rest)| rest.split_once('\''));
        url.map(|(url, _)| url.to_owned()).ok_or_else(|| ServicesError::NoUrl(name.to_owned()))
    }

    /// Does `action` (`start`, `stop`, `kill`, `wipe`, `settle`) to the server.
    ///
    /// # Errors
    /// When that fails.
    pub async fn order(&self, action: &str, name: &str) -> Result<(), ServicesError> {
        self.run(action, name, &[]).await.map(drop)
    }

    async fn run(
        &self,
        action: &str,
        name: &str,
        environment: &[(&str, &str)],
    ) -> Result<String, ServicesError> {
        let mut command = self.command(action);
        command.arg(name).envs(environment.iter().copied()).stdin(Stdio::null());
        let output =
            tokio::task::spawn_blocking(move || command.output()).await.map_err(io::Error::other)??;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            let words: Vec<&str> = words.lines().rev().take(10).collect();
            let words = words.into_iter().rev().collect::<Vec<_>>().join("\n");
            return Err(ServicesError::Failed { action: action.to_owned(), name: name.to_owned(), words });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn command(&self, action: &str) -> Command {
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/services"));
        command.arg(action).arg("--dir").arg(&self.folder);
        command
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        let _ = self.command("down").stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}
