//! File operations in one directory. A call may block for as long as the disk does, so only [`super::hands`] makes them.
//!
//! A file is replaced as a whole: after a crash or a power cut there is the old file or the new one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use nix::libc::{EMFILE, ENAMETOOLONG, ENFILE, ENOMEM, ENOTDIR, ESTALE, O_NOFOLLOW, O_NONBLOCK};
use serde::{Deserialize, Serialize};

/// A record takes a few hundred bytes, one of 64 uplinks some 40 KiB. A larger file is not ours.
const MAX_BYTES: u64 = 1 << 20;

/// An operation on the file `name`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    /// Read it.
    Read { name: String },
    /// Replace its content. If synced, return only once it is on disk.
    Write {
        name: String,
        content: String,
        synced: bool,
    },
    /// Remove it. A file that a power cut brings back does no harm: gateways are checked before they are used, and drills end by
    /// themselves.
    Remove { name: String },
    /// Rename it to `name.word`, and replace what had that name.
    SetAside { name: String, word: String },
}

/// The result of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Reply {
    /// The content of the file.
    Content(String),
    /// There is no such file.
    Absent,
    /// There is something of that name that is not a record; why it is not.
    Damaged(String),
    /// The file was written, removed or set aside.
    Done,
    /// The operation failed, and why.
    Failed(String),
}

/// Carries out an operation.
pub(super) fn perform(directory: &Path, request: &Request) -> Reply {
    let done = match request {
        Request::Read { name } => return read(&directory.join(name)),
        Request::Write {
            name,
            content,
            synced,
        } => write(directory, name, content.as_bytes(), *synced),
        Request::Remove { name } => match remove(&directory.join(name)) {
            Ok(true) => Ok(()),
            Ok(false) => return Reply::Absent,
            Err(error) => Err(error),
        },
        Request::SetAside { name, word } => {
            let path = directory.join(name);
            set_aside(&path, &path.with_added_extension(word))
        }
    };
    match done {
        Ok(()) => Reply::Done,
        Err(error) => Reply::Failed(error.to_string()),
    }
}

fn read(path: &Path) -> Reply {
    let opened = OpenOptions::new()
        .read(true)
        // The open must not block on a FIFO without a writer, and must not follow another user's symbolic link.
        .custom_flags(O_NOFOLLOW | O_NONBLOCK)
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Reply::Absent,
        Err(error) => return unreadable(&error),
    };
    match text(file) {
        Ok(text) => Reply::Content(text),
        Err(error) => unreadable(&error),
    }
}

/// An error that is due to this process or the whole directory says nothing about the file.
fn unreadable(error: &io::Error) -> Reply {
    match error.raw_os_error() {
        Some(EMFILE | ENFILE | ENOMEM | ENOTDIR | ENAMETOOLONG | ESTALE) => {
            Reply::Failed(error.to_string())
        }
        _ => Reply::Damaged(error.to_string()),
    }
}

fn text(file: File) -> io::Result<String> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    let size = file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if size as u64 > MAX_BYTES {
        return Err(io::Error::other(format!(
            "it is larger than {MAX_BYTES} bytes"
        )));
    }
    String::from_utf8(bytes).map_err(io::Error::other)
}

/// If `synced`, the new content is on disk before it replaces the old, and the directory entry before this returns.
fn write(directory: &Path, name: &str, bytes: &[u8], synced: bool) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let path = directory.join(name);
    let unfinished = unfinished(&path);
    remove_if_there(&unfinished)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .custom_flags(O_NOFOLLOW)
        .open(&unfinished)?;
    file.write_all(bytes)?;
    if synced {
        file.sync_all()?;
    }
    match fs::rename(&unfinished, &path) {
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            set_aside(&path, &path.with_added_extension(super::DAMAGED))?;
            fs::rename(&unfinished, &path)?;
        }
        renamed => renamed?,
    }
    if synced {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

/// Whether the file existed.
fn remove(path: &Path) -> io::Result<bool> {
    // A crash in the middle of `write` may have left the unfinished file.
    remove_if_there(&unfinished(path))?;
    remove_if_there(path)
}

fn set_aside(path: &Path, aside: &Path) -> io::Result<()> {
    match fs::rename(path, aside) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
        // A file cannot replace a directory, nor a directory a file.
        Err(error) => {
            match fs::symlink_metadata(aside) {
                Ok(old) if old.is_dir() => fs::remove_dir_all(aside)?,
                Ok(_) => fs::remove_file(aside)?,
                Err(_) => return Err(error),
            }
            fs::rename(path, aside)
        }
    }
}

fn unfinished(path: &Path) -> PathBuf {
    path.with_added_extension("new")
}

fn remove_if_there(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::symlink, net::UnixListener};

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    fn write(directory: &Path, content: &str) -> Reply {
        perform(
            directory,
            &Request::Write {
                name: "a.json".to_owned(),
                content: content.to_owned(),
                synced: true,
            },
        )
    }

    fn read(directory: &Path) -> Reply {
        let name = "a.json".to_owned();
        perform(directory, &Request::Read { name })
    }

    fn remove(directory: &Path) -> Reply {
        let name = "a.json".to_owned();
        perform(directory, &Request::Remove { name })
    }

    fn set_aside(directory: &Path) -> Reply {
        let (name, word) = ("a.json".to_owned(), "damaged".to_owned());
        perform(directory, &Request::SetAside { name, word })
    }

    #[test]
    fn what_was_written_is_read_until_it_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let made = directory.path().join("made");
        assert_eq!(read(&made), Reply::Absent);
        assert_eq!(remove(&made), Reply::Absent);
        for text in ["{}", "{\"a\": 1}"] {
            assert_eq!(write(&made, text), Reply::Done);
            assert_eq!(read(&made), Reply::Content(text.to_owned()));
        }
        // A crash before the new file replaced the old one.
        fs::write(made.join("a.json.new"), "{").unwrap();
        assert_eq!(remove(&made), Reply::Done);
        assert_eq!(fs::read_dir(&made).unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_record_is_read_as_damaged_set_aside_and_written_over() {
        let place: [fn(&Path); 6] = [
            |path| fs::create_dir(path).unwrap(),
            |path| mkfifo(path, Mode::S_IRWXU).unwrap(),
            |path| symlink("/etc/hostname", path).unwrap(),
            |path| drop(UnixListener::bind(path).unwrap()),
            |path| fs::write(path, [0xff, 0xfe]).unwrap(),
            |path| fs::write(path, vec![b' '; 2 << 20]).unwrap(),
        ];
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.json");
        let aside = directory.path().join("a.json.damaged");
        for make in place {
            make(&path);
            let found = read(directory.path());
            assert!(matches!(found, Reply::Damaged(_)), "{found:?}");
            // The newest one replaces the previous one, whether they are files or directories.
            assert_eq!(set_aside(directory.path()), Reply::Done);
            assert_eq!(read(directory.path()), Reply::Absent);
            assert!(aside.symlink_metadata().is_ok());
            make(&path);
            assert_eq!(write(directory.path(), "{}"), Reply::Done);
            assert_eq!(read(directory.path()), Reply::Content("{}".to_owned()));
            fs::remove_file(&path).unwrap();
        }
        let gone = set_aside(directory.path());
        assert!(matches!(gone, Reply::Failed(_)), "{gone:?}");
    }

    #[test]
    fn what_cannot_be_written_leaves_the_old() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(write(directory.path(), "{}"), Reply::Done);
        fs::create_dir(directory.path().join("a.json.new")).unwrap();
        let failed = write(directory.path(), "[]");
        assert!(matches!(failed, Reply::Failed(_)), "{failed:?}");
        assert_eq!(read(directory.path()), Reply::Content("{}".to_owned()));
    }
}
