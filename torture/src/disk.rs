//! A small disk in memory for the data of Postgres: it can be filled, and a commit does not wait for a disk that others use.

use std::{
    io::{self, Write as _},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

/// Its size. Without load, Postgres takes a tenth.
const SIZE: &str = "768m";

/// Unmounted when dropped, which must be after Postgres has ended.
#[derive(Debug)]
pub(crate) struct Disk {
    server: String,
    place: PathBuf,
}

impl Disk {
    /// Puts the data of each of these servers in `services` on a disk of its own. None: this machine does not let us.
    pub(crate) fn under(services: &Path, servers: &[&str]) -> io::Result<Vec<Self>> {
        let Some(user) = id("postgres") else { return Ok(Vec::new()) };
        // The user that Postgres runs as must be able to reach it, as in scripts/services.
        let state = std::env::temp_dir().join(format!("windlass-torture-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&state)?;
        let mut disks = Vec::new();
        for server in servers {
            let place = PathBuf::from(format!("{}-{server}", state.display()));
            std::fs::create_dir(&place)?;
            let options = format!("size={SIZE},mode=0755,uid={user}");
            let mounted =
                Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&place).output();
            if !mounted.is_ok_and(|mounted| mounted.status.success()) {
                std::fs::remove_dir(&place)?;
                std::fs::remove_dir_all(&state)?;
                return Ok(Vec::new());
            }
            symlink(&place, state.join(server))?;
            disks.push(Self { server: (*server).to_owned(), place });
        }
        std::fs::create_dir_all(services)?;
        symlink(&state, services.join("state"))?;
        Ok(disks)
    }

    /// Whose it is.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// Takes all that is left on it. To be called where blocking is allowed.
    pub(crate) fn fill(&self) -> io::Result<()> {
        let mut balloon = std::fs::File::create(self.balloon())?;
        let block = vec![0; 1 << 20];
        let mut size = block.len();
        while size > 0 {
            match balloon.write(&block[..size]) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => size /= 2,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Gives back what [`fill`](Self::fill) has taken.
    pub(crate) fn empty(&self) -> io::Result<()> {
        std::fs::remove_file(self.balloon())
    }

    fn balloon(&self) -> PathBuf {
        self.place.join("balloon")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.place).output();
        let _ = std::fs::remove_dir(&self.place);
    }
}

/// The number of a user, if there is one and we may become it.
fn id(user: &str) -> Option<String> {
    let number = |arguments: &[&str]| {
        let output = Command::new("id").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    (number(&["-u"])? == "0").then(|| number(&["-u", user]))?
}
