use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Component, Path, PathBuf},
};

use crate::Problem;

/// The folders that the handlers work in. Paths in payloads are relative to them.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// What handlers read.
    input: PathBuf,
    /// What they write.
    output: PathBuf,
    /// Where mail goes while there is no mail server.
    outbox: PathBuf,
}

/// Inputs to try the handlers with.
const SAMPLES: [(&str, &[u8]); 4] = [
    ("logo.png", include_bytes!("../data/logo.png")),
    ("measurements.jsonl", include_bytes!("../data/measurements.jsonl")),
    ("orders.csv", include_bytes!("../data/orders.csv")),
    ("photo.jpg", include_bytes!("../data/photo.jpg")),
];

impl Workspace {
    /// The folders `files`, `output` and `outbox` in `data_dir`, made where absent.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn new(data_dir: &Path) -> io::Result<Self> {
        let [input, output, outbox] = ["files", "output", "outbox"].map(|name| data_dir.join(name));
        for folder in [&input, &output, &outbox] {
            fs::create_dir_all(folder)?;
        }
        Ok(Self { input, output, outbox })
    }

    /// As [`Workspace::new`], with the sample inputs in `files`; those that are there already stay as they are.
    ///
    /// # Errors
    /// When folders or files cannot be written.
    pub fn with_samples(data_dir: &Path) -> io::Result<Self> {
        let workspace = Self::new(data_dir)?;
        for (name, bytes) in SAMPLES {
            let path = workspace.input.join(name);
            if !path.try_exists()? {
                write_atomically(&path, |file| file.write_all(bytes))?;
            }
        }
        Ok(workspace)
    }

    /// Where mail goes while there is no mail server.
    #[must_use]
    pub fn outbox(&self) -> &Path {
        &self.outbox
    }

    /// Opens an input.
    ///
    /// # Errors
    /// When the path leaves the workspace, or there is no such file.
    pub fn open(&self, path: &str) -> Result<File, Problem> {
        let place = checked(&self.input, path)?;
        // Opening a named pipe would wait for its writer.
        if !fs::metadata(&place).map_err(Problem::io(path))?.is_file() {
            return Err(Problem::content(path, "not a file"));
        }
        File::open(place).map_err(Problem::io(path))
    }

    /// Writes an output, which replaces an older one in one step.
    ///
    /// # Errors
    /// When the path leaves the workspace, or the file cannot be written.
    pub fn write(&self, path: &str, bytes: &[u8]) -> Result<(), Problem> {
        let place = checked(&self.output, path)?;
        if let Some(folder) = place.parent() {
            fs::create_dir_all(folder).map_err(Problem::io(path))?;
        }
        write_atomically(&place, |file| file.write_all(bytes)).map_err(Problem::io(path))
    }
}

/// Writes a file under another name and renames it when it is complete and on the disk, so that nobody ever sees a
/// part of it, whenever this process may die.
pub(crate) fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> io::Result<()> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".").suffix(".part");
    // Temporary files are private by default, and a rename keeps that.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let file = builder.tempfile_in(path.parent().unwrap_or(Path::new(".")))?;

    let mut buffer = BufWriter::new(file.as_file());
    write(&mut buffer)?;
    buffer.flush()?;
    drop(buffer);
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// The place of a path from a payload, which is not to be trusted. That nobody else makes symbolic links in the
/// workspace at the same moment is taken for granted.
fn checked(root: &Path, path: &str) -> Result<PathBuf, Problem> {
    let escapes = || Problem::Escapes(path.to_owned());
    let mut place = root.to_owned();
    for component in Path::new(path).components() {
        let Component::Normal(name) = component else { return Err(escapes()) };
        place.push(name);
        match fs::symlink_metadata(&place) {
            Ok(found) if found.is_symlink() => return Err(escapes()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Names that no file can have.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidFilename) =>
            {
                return Err(escapes());
            }
            Err(error) => return Err(Problem::io(path)(error)),
        }
    }
    if place == root { Err(escapes()) } else { Ok(place) }
}
