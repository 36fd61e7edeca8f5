//! A small disk in memory for the data of Postgres: it can be filled, and a commit does not wait for a disk that others use.

use std::{
    io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

/// Its size. Without load, Postgres takes a tenth.
const SIZE: &str = "768m";

/// Unmounted when dropped, which must be after Postgres has ended.
#[derive(Debug)]
pub(crate) struct Disk {
    place: PathBuf,
}

impl Disk {
    /// Puts the data of the Postgres that will live in `services` on a disk of its own. `None`: this machine does not let us.
    pub(crate) fn under(services: &Path) -> io::Result<Option<Self>> {
        let Some(user) = id("postgres") else { return Ok(None) };
        // The user that Postgres runs as must be able to reach it, as in scripts/services.
        let place =
            std::env::temp_dir().join(format!("windlass-torture-disk-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&place)?;
        let options = format!("size={SIZE},mode=0755,uid={user}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&place).output();
        if !mounted.is_ok_and(|mounted| mounted.status.success()) {
            std::fs::remove_dir(&place)?;
            return Ok(None);
        }
        let disk = Self { place };
        let state = PathBuf::from(format!("{}-state", disk.place.display()));
        std::fs::create_dir(&state)?;
        std::fs::create_dir_all(services)?;
        symlink(&disk.place, state.join("postgres"))?;
        symlink(&state, services.join("state"))?;
        Ok(Some(disk))
    }

    pub(crate) fn place(&self) -> &Path {
        &self.place
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
