//! Publishing: a finished dataset takes its place with one atomic step, or not at all.
//!
//! A dataset folder is `data/<epoch>/part-*.parquet`, `README.md` and `manifest.json`. The new one is
//! built in a staging folder beside the target (`.<name>.textmill-staging`, so on the same file
//! system), made durable, then exchanged with the target by `renameat2(RENAME_EXCHANGE)`, then the
//! old one is removed. Killed at any moment, the target is either the whole old or the whole new
//! dataset; what is left beside it is recognised and removed by the next run.
//!
//! File systems without that exchange get two renames: the old folder goes aside
//! (`.<name>.textmill-old`), the new one in. Killed between the two, the target is missing until the
//! next run puts the old one back.
//!
//! Nothing that textmill did not make is ever removed: a target without our manifest, or with files
//! that the manifest does not list, is refused.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use crate::data::card::{CARD_FILE, card};
use crate::data::manifest::{MANIFEST_FILE, Manifest, PartRecord, epoch_folder, read_manifest};
use crate::data::write::{WriteError, sync_folder};
use crate::row::Type;

/// Marks a staging folder as ours until its manifest is there.
const MARKER_FILE: &str = ".textmill-staging";

/// A dataset that is being built beside its target.
///
/// Dropping it is like a crash: the target is untouched, the staging folder stays until the next
/// [`Publication::prepare`]. [`Publication::discard`] removes it at once.
#[derive(Debug)]
pub struct Publication {
    target: PathBuf,
    staging: PathBuf,
    aside: PathBuf,
    /// The manifest of the dataset that is there now.
    published: Option<Manifest>,
    /// Held so that no other run stages for the same target; the system frees it on exit.
    _lock: File,
    /// Whether to try the atomic exchange; tests turn it off.
    exchange: bool,
}

/// The moments between which a publication can be cut off, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    Written,
    Unmarked,
    /// Only without the atomic exchange.
    OldAside,
    Swapped,
    Removed,
}

impl Publication {
    /// Checks the target, puts right what a crash left, and makes an empty staging folder.
    ///
    /// Refuses a target that is not empty and not a dataset of ours, one with files that its manifest
    /// does not list, and one that another run is staging for.
    pub fn prepare(target: &Path) -> Result<Publication, WriteError> {
        let target = resolve(target)?;
        let staging = beside(&target, "staging")?;
        let aside = beside(&target, "old")?;
        let (published, lock) = loop {
            recover(&target, &staging, &aside)?;
            let published = check_target(&target)?;
            match fs::create_dir(&staging) {
                Ok(()) => break (published, lock(&staging)?),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(WriteError::io(&staging, &error)),
            }
        };
        write_file(&staging.join(MARKER_FILE), b"a textmill dataset that is being written\n")?;
        Ok(Publication { target, staging, aside, published, _lock: lock, exchange: true })
    }

    /// The manifest of the dataset that is published now.
    pub fn published(&self) -> Option<&Manifest> {
        self.published.as_ref()
    }

    /// Where the parts of an epoch are to be written.
    pub fn parts_folder(&self, epoch: &str) -> PathBuf {
        self.staging.join("data").join(epoch_folder(epoch))
    }

    /// Refuses an epoch whose folder is another one's: `a:b` and `a-b` share theirs.
    pub fn check_epoch(&self, epoch: &str) -> Result<(), WriteError> {
        let own = format!("data/{}/", epoch_folder(epoch));
        let mut parts = self.published.iter().flat_map(|manifest| &manifest.parts);
        match parts.find(|part| part.epoch != epoch && part.path.starts_with(&own)) {
            None => Ok(()),
            Some(other) => {
                let message = format!("`{own}` has the parts of another epoch, `{}`", other.epoch);
                Err(WriteError::new(&self.target, message).hint("give this epoch another name"))
            }
        }
    }

    /// Refuses columns that differ from those of other epochs' parts: no reader could take both as one dataset.
    pub fn check_columns(&self, epoch: &str, columns: &[(String, Type)]) -> Result<(), WriteError> {
        let Some(manifest) = &self.published else { return Ok(()) };
        let Some(other) = manifest.parts.iter().find(|part| part.epoch != epoch) else { return Ok(()) };
        let Some(difference) = difference(&manifest.columns, columns) else { return Ok(()) };
        let message = format!("{difference}, and one dataset has the same columns in all epochs");
        let hint = format!("save to another folder, or make the columns as in epoch `{}`", other.epoch);
        Err(WriteError::new(&self.target, message).hint(hint))
    }

    /// Takes over the parts of all other epochs from the published dataset (as hard links; copied
    /// where the file system has none). The records belong into the new manifest.
    pub fn carry_earlier(&self, epoch: &str) -> Result<Vec<PartRecord>, WriteError> {
        let parts = self.published.iter().flat_map(|manifest| &manifest.parts);
        let earlier: Vec<PartRecord> = parts.filter(|part| part.epoch != epoch).cloned().collect();
        for part in &earlier {
            let (from, to) = (self.target.join(&part.path), self.staging.join(&part.path));
            let wrong = |error: io::Error| WriteError::io(&to, &error);
            if let Some(folder) = to.parent() {
                fs::create_dir_all(folder).map_err(wrong)?;
            }
            if fs::hard_link(&from, &to).is_err() {
                fs::copy(&from, &to).and_then(|_| File::open(&to)?.sync_all()).map_err(wrong)?;
            }
        }
        Ok(earlier)
    }

    /// Writes the card and the manifest, makes all durable and puts the dataset in its place.
    ///
    /// The staging folder must hold exactly the parts that the manifest lists.
    pub fn commit(self, manifest: &Manifest, pipeline_file: &str) -> Result<(), WriteError> {
        self.commit_until(manifest, pipeline_file, Moment::Removed)
    }

    /// Gives up: removes the staging folder, the target stays as it is.
    pub fn discard(self) -> Result<(), WriteError> {
        remove_ours(&self.staging)
    }

    /// Commits, or stops after a moment as a killed process would.
    fn commit_until(self, manifest: &Manifest, pipeline_file: &str, last: Moment) -> Result<(), WriteError> {
        check_parts(&self.staging, manifest)?;
        check_target(&self.target)?;
        write_file(&self.staging.join(CARD_FILE), card(manifest, pipeline_file).as_bytes())?;
        let path = self.staging.join(MANIFEST_FILE);
        let mut text = serde_json::to_string_pretty(manifest)
            .map_err(|error| WriteError::new(&path, error.to_string()))?;
        text.push('\n');
        write_file(&path, text.as_bytes())?;
        sync_tree(&self.staging)?;
        if last == Moment::Written {
            return Ok(());
        }
        let marker = self.staging.join(MARKER_FILE);
        fs::remove_file(&marker).map_err(|error| WriteError::io(&marker, &error))?;
        sync_folder(&self.staging)?;
        if last == Moment::Unmarked {
            return Ok(());
        }
        let old = self.swap(last)?;
        if last <= Moment::Swapped {
            return Ok(());
        }
        match old {
            Some(old) => remove_ours(&old),
            None => Ok(()),
        }
    }

    /// Puts the staged dataset in place; gives the path that the old one now has.
    fn swap(&self, last: Moment) -> Result<Option<PathBuf>, WriteError> {
        let Publication { target, staging, aside, .. } = self;
        let wrong = |error: io::Error| {
            WriteError::new(target, format!("cannot be put in place: {error}"))
                .hint("is the folder itself a mount point? save to a folder inside it")
        };
        let old = if is_absent_or_empty(target)? {
            fs::rename(staging, target).map_err(wrong)?;
            None
        } else if self.exchange && exchange(staging, target).map_err(wrong)? {
            Some(staging.clone())
        } else {
            fs::rename(target, aside).map_err(wrong)?;
            if last == Moment::OldAside {
                return Ok(None);
            }
            if let Err(error) = fs::rename(staging, target) {
                fs::rename(aside, target).map_err(wrong)?;
                return Err(wrong(error));
            }
            Some(aside.clone())
        };
        sync_parent(target)?;
        Ok(old)
    }
}

/// The first column that two datasets do not both have with the same type, as the start of a sentence.
fn difference(published: &[(String, Type)], columns: &[(String, Type)]) -> Option<String> {
    let kind_in = |columns: &[(String, Type)], name: &str| {
        columns.iter().find(|(column, _)| column == name).map(|(_, kind)| kind.clone())
    };
    columns.iter().chain(published).find_map(|(name, _)| {
        match (kind_in(published, name), kind_in(columns, name)) {
            (Some(before), Some(now)) if before == now => None,
            (Some(before), Some(now)) => {
                Some(format!("column `{name}` was {before} in earlier epochs and is {now} now"))
            }
            (None, Some(now)) => Some(format!("column `{name}` ({now}) is not in earlier epochs")),
            (Some(before), None) => Some(format!("column `{name}` ({before}) is only in earlier epochs")),
            (None, None) => None,
        }
    })
}

/// Exchanges two folders in one step; `false` where the system cannot.
#[cfg(target_os = "linux")]
fn exchange(one: &Path, other: &Path) -> io::Result<bool> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(true),
        Err(Errno::NOSYS | Errno::INVAL | Errno::NOTSUP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn exchange(_: &Path, _: &Path) -> io::Result<bool> {
    Ok(false)
}

/// The target without symbolic links, so that its neighbour is on the same file system. Makes the
/// folders above it.
fn resolve(target: &Path) -> Result<PathBuf, WriteError> {
    let wrong = |error: io::Error| WriteError::io(target, &error);
    if target.exists() {
        return target.canonicalize().map_err(wrong);
    }
    if target.is_symlink() {
        return Err(WriteError::new(target, "a symbolic link to nothing").hint("remove it"));
    }
    let target = std::path::absolute(target).map_err(wrong)?;
    let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
        return Err(WriteError::new(&target, "not a folder that a dataset can be saved to"));
    };
    fs::create_dir_all(parent).map_err(|error| WriteError::io(parent, &error))?;
    Ok(parent.canonicalize().map_err(wrong)?.join(name))
}

fn beside(target: &Path, suffix: &str) -> Result<PathBuf, WriteError> {
    let Some(name) = target.file_name() else {
        return Err(WriteError::new(target, "not a folder that a dataset can be saved to"));
    };
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".textmill-{suffix}"));
    Ok(target.with_file_name(hidden))
}

/// Puts right what a killed publication left beside the target.
fn recover(target: &Path, staging: &Path, aside: &Path) -> Result<(), WriteError> {
    if staging.is_symlink() || staging.exists() {
        let _lock = lock(staging)?;
        remove_ours(staging)?;
    }
    if aside.exists() {
        if is_absent_or_empty(target)? {
            fs::rename(aside, target).map_err(|error| WriteError::io(target, &error))?;
            sync_parent(target)?;
        } else {
            remove_ours(aside)?;
        }
    }
    Ok(())
}

fn lock(staging: &Path) -> Result<File, WriteError> {
    let folder = File::open(staging).map_err(|error| WriteError::io(staging, &error))?;
    match folder.try_lock() {
        Err(TryLockError::WouldBlock) => {
            let error = WriteError::new(staging, "another run is saving to the same dataset now");
            Err(error.hint("wait for it to end"))
        }
        // Some network file systems have no locks; the run goes on without.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(folder),
    }
}

/// The manifest of a target that may be replaced; `None` if there is nothing to replace. Changes
/// nothing, so a pipeline can be checked with it long before it runs.
pub fn check_target(target: &Path) -> Result<Option<Manifest>, WriteError> {
    if is_absent_or_empty(target)? {
        return Ok(None);
    }
    let hint = "save to another folder, or move away what is there";
    let manifest = read_manifest(target).map_err(|error| WriteError {
        path: error.path,
        message: error.message,
        hint: Some(hint.to_owned()),
    })?;
    let Some(manifest) = manifest else {
        let error = WriteError::new(target, "the folder is not empty and not a textmill dataset");
        return Err(error.hint(hint));
    };
    if manifest.parts.iter().any(|part| !is_part_path(&part.path)) {
        return Err(WriteError::new(target, "its manifest lists a part outside `data/`").hint(hint));
    }
    let listed = listed_files(&manifest);
    if let Some(stranger) = files_of(target)?.iter().find(|file| !listed.contains(*file)) {
        let message = format!("`{}` is no file of the dataset, and would be lost", stranger.display());
        return Err(WriteError::new(target, message).hint(hint));
    }
    Ok(Some(manifest))
}

/// All files of a dataset folder.
fn listed_files(manifest: &Manifest) -> HashSet<PathBuf> {
    let parts = manifest.parts.iter().map(|part| part.path.as_str());
    parts.chain([CARD_FILE, MANIFEST_FILE]).map(PathBuf::from).collect()
}

/// Whether the staging folder holds the parts that the manifest lists and no others.
fn check_parts(staging: &Path, manifest: &Manifest) -> Result<(), WriteError> {
    for part in &manifest.parts {
        let path = staging.join(&part.path);
        let bytes = path.metadata().map_or(0, |metadata| metadata.len());
        if !is_part_path(&part.path) || bytes != part.bytes {
            return Err(WriteError::new(&path, "the part is not as the manifest lists it"));
        }
    }
    let mut listed = listed_files(manifest);
    listed.insert(PathBuf::from(MARKER_FILE));
    match files_of(staging)?.iter().find(|file| !listed.contains(*file)) {
        Some(extra) => Err(WriteError::new(&staging.join(extra), "the file is not listed in the manifest")),
        None => Ok(()),
    }
}

/// `data/<folder>/<file>`.
fn is_part_path(path: &str) -> bool {
    let parts: Vec<Component<'_>> = Path::new(path).components().collect();
    parts.len() == 3
        && parts[0] == Component::Normal("data".as_ref())
        && parts.iter().all(|part| matches!(part, Component::Normal(_)))
}

fn is_absent_or_empty(folder: &Path) -> Result<bool, WriteError> {
    match fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(WriteError::new(folder, "a file, a dataset needs a folder").hint("save to another path"))
        }
        Err(error) => Err(WriteError::io(folder, &error)),
    }
}

/// Everything under a folder that is no folder, relative to it, sorted; links are not followed.
fn files_of(folder: &Path) -> Result<Vec<PathBuf>, WriteError> {
    let mut files = Vec::new();
    walk(folder, Path::new(""), &mut |path, is_folder| {
        if !is_folder {
            files.push(path.to_owned());
        }
        Ok(())
    })?;
    files.sort();
    Ok(files)
}

/// Makes the lists of all folders durable, inner ones first.
fn sync_tree(folder: &Path) -> Result<(), WriteError> {
    walk(folder, Path::new(""), &mut |path, is_folder| match is_folder {
        true => sync_folder(&folder.join(path)),
        false => Ok(()),
    })?;
    sync_folder(folder)
}

type Visit<'a> = dyn FnMut(&Path, bool) -> Result<(), WriteError> + 'a;

/// Visits all that is under `root/inner`, a folder after what is in it.
fn walk(root: &Path, inner: &Path, visit: &mut Visit<'_>) -> Result<(), WriteError> {
    let folder = root.join(inner);
    let wrong = |error: io::Error| WriteError::io(&folder, &error);
    for entry in fs::read_dir(&folder).map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        let path = inner.join(entry.file_name());
        let is_folder = entry.file_type().map_err(wrong)?.is_dir();
        if is_folder {
            walk(root, &path, visit)?;
        }
        visit(&path, is_folder)?;
    }
    Ok(())
}

/// Removes a staging folder or an old dataset, what marks it as ours last; anything else is refused.
fn remove_ours(folder: &Path) -> Result<(), WriteError> {
    let marks = [MARKER_FILE, MANIFEST_FILE];
    let ours = folder.join(MARKER_FILE).exists() || matches!(read_manifest(folder), Ok(Some(_)));
    if folder.is_symlink() || !(ours || is_absent_or_empty(folder)?) {
        let error = WriteError::new(folder, "in the way, and not made by textmill");
        return Err(error.hint("move it away"));
    }
    let wrong = |error: io::Error| WriteError::new(folder, format!("cannot be removed: {error}"));
    for entry in fs::read_dir(folder).map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        if entry.file_type().map_err(wrong)?.is_dir() {
            fs::remove_dir_all(entry.path()).map_err(wrong)?;
        } else if !marks.iter().any(|mark| entry.file_name() == *mark) {
            fs::remove_file(entry.path()).map_err(wrong)?;
        }
    }
    for mark in marks {
        match fs::remove_file(folder.join(mark)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(wrong(error)),
            _ => {}
        }
    }
    fs::remove_dir(folder).map_err(wrong)?;
    sync_parent(folder)
}

fn sync_parent(path: &Path) -> Result<(), WriteError> {
    path.parent().map_or(Ok(()), sync_folder)
}

/// Writes a file and makes its content durable.
fn write_file(path: &Path, content: &[u8]) -> Result<(), WriteError> {
    let written = File::create(path).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    written.map_err(|error| WriteError::io(path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::hash::file_hash;
    use crate::data::manifest::tests::sample;
    use crate::data::read::read_dataset;
    use crate::data::write::{PartOptions, PartWriter};
    use crate::row::Fields;

    /// A publication of one row in an epoch, ready to be committed.
    fn stage(target: &Path, epoch: &str, word: &str) -> (Publication, Manifest) {
        let publication = Publication::prepare(target).unwrap();
        let mut manifest = Manifest { epoch: epoch.to_owned(), ..sample() };
        let folder = publication.parts_folder(epoch);
        let mut writer =
            PartWriter::create(&folder, manifest.columns.clone(), PartOptions::default()).unwrap();
        writer.push(&Fields::from_iter([("text".to_owned(), word.into())])).unwrap();
        manifest.parts =
            writer.finish().unwrap().iter().map(|part| PartRecord::new(epoch, false, part)).collect();
        (publication, manifest)
    }

    fn publish(target: &Path, word: &str) {
        let (publication, manifest) = stage(target, "0", word);
        publication.commit(&manifest, "name: x\n").unwrap();
    }

    /// The words of a dataset that is whole, or `nothing`.
    fn words(target: &Path) -> String {
        let Some(manifest) = check_target(target).unwrap() else { return "nothing".to_owned() };
        for part in &manifest.parts {
            assert_eq!(file_hash(&target.join(&part.path)).unwrap().sha256, part.sha256);
        }
        assert!(target.join(CARD_FILE).is_file());
        let word = |row: Fields| row["text"].as_str().unwrap().to_owned();
        read_dataset(target).unwrap().map(|row| word(row.unwrap())).collect::<Vec<_>>().join(" ")
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Publishes `new` over `old` (if it says something), killed after a moment; checks what stands
    /// there then, that the next run puts all right, and that nothing stays behind.
    fn check(old: &str, exchange: bool, last: Moment, killed: &str, recovered: &str) {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("set");
        if old != "nothing" {
            publish(&target, old);
        }
        let (mut publication, manifest) = stage(&target, "0", "new");
        publication.exchange = exchange;
        publication.commit_until(&manifest, "name: x\n", last).unwrap();
        let case = format!("{old}, exchange {exchange}, {last:?}");
        assert_eq!(words(&target), killed, "{case}");
        let next = Publication::prepare(&target).unwrap();
        assert_eq!(words(&target), recovered, "{case}, recovered");
        next.discard().unwrap();
        publish(&target, "third");
        assert_eq!(words(&target), "third", "{case}, published again");
        assert_eq!(names(folder.path()), ["set"], "{case}");
    }

    #[test]
    fn killed_at_any_moment_it_is_all_old_or_all_new() {
        use Moment::{OldAside, Removed, Swapped, Unmarked, Written};
        for exchange in [true, false] {
            for last in [Written, Unmarked] {
                check("nothing", exchange, last, "nothing", "nothing");
                check("old", exchange, last, "old", "old");
            }
            for last in [Swapped, Removed] {
                check("nothing", exchange, last, "new", "new");
                check("old", exchange, last, "new", "new");
            }
        }
        check("old", false, OldAside, "nothing", "old");
    }

    #[test]
    fn a_removal_that_was_cut_off_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("set");
        publish(&target, "old");
        let (publication, manifest) = stage(&target, "0", "new");
        let staging = publication.staging.clone();
        publication.commit_until(&manifest, "", Moment::Swapped).unwrap();
        fs::remove_dir_all(staging.join("data")).unwrap();
        fs::remove_file(staging.join(CARD_FILE)).unwrap();
        Publication::prepare(&target).unwrap().discard().unwrap();
        assert_eq!((names(folder.path()), words(&target)), (vec!["set".to_owned()], "new".to_owned()));
    }

    fn check_refused(prepare: impl FnOnce(&Path), expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("set");
        prepare(&target);
        let before = names(folder.path());
        assert_eq!(Publication::prepare(&target).unwrap_err().message, expected);
        assert_eq!(names(folder.path()), before, "nothing is left, nothing is removed");
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let not_ours = "the folder is not empty and not a textmill dataset";
        let foreign = |target: &Path, name: &str| {
            fs::create_dir_all(target).unwrap();
            fs::write(target.join(name), "{}").unwrap();
        };
        check_refused(|target| foreign(target, "notes.txt"), not_ours);
        check_refused(|target| foreign(target, "manifest.json"), not_ours);
        check_refused(|target| fs::write(target, "").unwrap(), "a file, a dataset needs a folder");
        let stranger = |target: &Path| {
            publish(target, "old");
            fs::write(target.join("data/0/mine.txt"), "").unwrap();
        };
        check_refused(stranger, "`data/0/mine.txt` is no file of the dataset, and would be lost");
        let in_the_way = |target: &Path| foreign(&beside(target, "staging").unwrap(), "notes.txt");
        check_refused(in_the_way, "in the way, and not made by textmill");
    }

    #[test]
    fn a_stranger_that_comes_late_stops_the_commit() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("set");
        publish(&target, "old");
        let (publication, manifest) = stage(&target, "0", "new");
        fs::write(target.join("late.txt"), "").unwrap();
        publication.commit(&manifest, "").unwrap_err();
        assert!(target.join("late.txt").exists());
        assert_eq!(read_dataset(&target).unwrap().count(), 1);
    }

    #[test]
    fn two_runs_cannot_stage_for_one_target() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("deep/set");
        let first = Publication::prepare(&target).unwrap();
        let error = Publication::prepare(&target).unwrap_err();
        assert_eq!(error.message, "another run is saving to the same dataset now");
        drop(first);
        Publication::prepare(&target).unwrap();
    }

    #[test]
    fn the_manifest_must_list_the_parts_that_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("set");
        let (publication, manifest) = stage(&target, "0", "new");
        let unlisted = Manifest { parts: vec![], ..manifest };
        let error = publication.commit(&unlisted, "").unwrap_err();
        assert_eq!(error.message, "the file is not listed in the manifest");
        let (publication, mut manifest) = stage(&target, "0", "new");
        manifest.parts[0].bytes += 1;
        let error = publication.commit(&manifest, "").unwrap_err();
        assert_eq!(error.message, "the part is not as the manifest lists it");
        assert!(!target.exists());
    }

    #[test]
    fn earlier_releases_are_carried_over() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("set");
        publish(&target, "old");
        let (publication, mut manifest) = stage(&target, "2026-11-23T02:00:00Z", "new");
        let earlier = publication.carry_earlier("2026-11-23T02:00:00Z").unwrap();
        manifest.parts.splice(0..0, earlier);
        publication.commit(&manifest, "").unwrap();
        assert_eq!(words(&target), "old new");
        assert_eq!(names(&target.join("data")), ["0", "2026-11-23T02-00-00Z"]);
        let (publication, _) = stage(&target, "0", "again");
        assert_eq!(publication.carry_earlier("0").unwrap(), manifest.parts[1..]);
    }

    #[test]
    fn epochs_share_their_columns() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("set");
        publish(&target, "old");
        let publication = Publication::prepare(&target).unwrap();
        let check = |epoch: &str, columns: &[(&str, Type)], expected: Result<(), &str>| {
            let columns: Vec<(String, Type)> =
                columns.iter().map(|(name, kind)| ((*name).to_owned(), kind.clone())).collect();
            let checked = publication.check_columns(epoch, &columns).map_err(|error| error.message);
            let expected = expected
                .map_err(|differs| format!("{differs}, and one dataset has the same columns in all epochs"));
            assert_eq!(checked, expected);
        };
        check("1", &[("text", Type::Text)], Ok(()));
        check("0", &[("text", Type::Number)], Ok(()));
        let differs = "column `text` was text in earlier epochs and is number now";
        check("1", &[("text", Type::Number)], Err(differs));
        let more = [("text", Type::Text), ("z", Type::Number)];
        check("1", &more, Err("column `z` (number) is not in earlier epochs"));
        check("1", &[], Err("column `text` (text) is only in earlier epochs"));
    }

    #[test]
    fn a_linked_target_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("real")).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("real", &link).unwrap();
        publish(&link, "old");
        publish(&link, "new");
        assert_eq!(words(&folder.path().join("real")), "new");
        assert!(link.is_symlink());
    }
}
