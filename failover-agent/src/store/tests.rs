use std::fs;

use super::*;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Lines {
    lines: Vec<String>,
}

fn lines(text: &str) -> Lines {
    Lines {
        lines: vec![text.to_owned()],
    }
}

/// Both directories below one.
fn dirs(directory: &Path) -> Dirs {
    Dirs {
        run: directory.join("run"),
        state: directory.join("state"),
        ..Dirs::default()
    }
}

#[test]
fn what_was_stored_is_loaded_until_it_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    for life in [Life::Boot, Life::Ever] {
        let file = || Store::from(dir.path()).file("lines.json", life);
        assert_eq!(file().load::<Lines>(), None);
        assert!(!file().erase());
        for text in ["a", "b"] {
            file().replace(&lines(text));
            assert_eq!(file().load(), Some(lines(text)));
        }
        file().remove();
        assert_eq!(file().load::<Lines>(), None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        file().replace(&lines("a"));
        assert!(file().erase());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

#[test]
fn what_is_damaged_or_of_another_boot_or_namespace_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lines.json");
    let file = |life| Store::from(dir.path()).file("lines.json", life);
    for damaged in ["", "{", "[]", r#"{"lines": 3}"#, "\0\0\0\0"] {
        fs::write(&path, damaged).unwrap();
        assert_eq!(file(Life::Ever).load::<Lines>(), None);
        let aside = dir.path().join("lines.json.damaged");
        assert_eq!(fs::read_to_string(aside).unwrap(), damaged);
        assert!(!path.exists());
    }
    file(Life::Boot).replace(&lines("a"));
    let good = fs::read_to_string(&path).unwrap();
    for field in ["boot_id", "network_namespace"] {
        let mut record: serde_json::Value = serde_json::from_str(&good).unwrap();
        for other in [Some("another"), None] {
            match other {
                Some(other) => record[field] = other.into(),
                None => drop(record.as_object_mut().unwrap().remove(field)),
            }
            fs::write(&path, record.to_string()).unwrap();
            // A store that only reads changes nothing.
            let looking = Store::new(dir.path(), dir.path(), Mode::ReadOnly);
            assert_eq!(looking.file("lines.json", Life::Boot).load::<Lines>(), None);
            assert!(path.exists());
            assert_eq!(file(Life::Boot).load::<Lines>(), None);
            let aside = dir.path().join("lines.json.foreign");
            assert_eq!(fs::read_to_string(aside).unwrap(), record.to_string());
            assert!(!path.exists());
        }
    }
    // For a file that is valid for ever, neither boot nor namespace is compared.
    fs::write(&path, r#"{"lines": ["a"]}"#).unwrap();
    assert_eq!(file(Life::Ever).load(), Some(lines("a")));
}

#[test]
fn what_cannot_be_written_is_known_all_the_same_and_told_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::from(dir.path());
    let file = store.file("lines.json", Life::Ever);
    file.replace(&lines("a"));
    assert!(file.settle().is_ok());
    let obstacle = dir.path().join("lines.json.new");
    fs::create_dir(&obstacle).unwrap();
    file.replace(&lines("b"));
    let error = file.settle().unwrap_err().to_string();
    assert!(error.contains("lines.json: "), "{error}");
    assert_eq!(file.load(), Some(lines("b")));
    let unwritten = store.finish();
    assert_eq!(unwritten.len(), 1);
    assert!(
        unwritten[0].contains("lines.json is not written: "),
        "{unwritten:?}"
    );
    fs::remove_dir(&obstacle).unwrap();
    assert_eq!(store.finish(), Vec::<String>::new());
    let later = Store::from(dir.path()).file("lines.json", Life::Ever);
    assert_eq!(later.load(), Some(lines("b")));
}

#[test]
fn a_store_without_its_process_waits_for_nothing_and_loses_nothing() {
    // Here, `/proc/self/exe` is a test runner, which does not answer: as good as a disk that fails.
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dirs(dir.path()));
    let file = store.file("lines.json", Life::Boot);
    let begun = Instant::now();
    for number in 0..1000 {
        file.replace(&lines(&number.to_string()));
    }
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(file.load(), Some(lines("999")));
    file.settle().unwrap_err();
    assert_eq!(store.finish().len(), 1);
    // The content in memory is handed over.
    let newest = store.0.run.newest();
    assert_eq!(newest.len(), 1);
    assert!(!newest[0].written);
    assert!(newest[0].content.as_ref().unwrap().contains("999"));
}
