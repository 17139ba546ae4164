//! A folder of the local disk as [`Media`].
//!
//! Files are opened without following a link in the last place, so nobody who can plant one redirects a write. Nothing
//! is cached and nothing is synced that was not asked for.

use super::{File, FolderEntry, Media, Space, name, sys};
use crate::base::canary::{Canary, sync};
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use std::fs::{self, OpenOptions};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A folder of the local disk.
pub struct LocalDisk {
    root: PathBuf,
}

impl LocalDisk {
    /// A disk whose names lie below `root`, which must exist before the first call.
    pub fn new(root: &Path) -> LocalDisk {
        LocalDisk { root: root.to_owned() }
    }

    /// The folder all names lie below.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn path(&self, name: &str) -> Result<PathBuf> {
        name::check(name)?;
        Ok(self.root.join(name))
    }

    fn folder(&self, name: &str) -> Result<PathBuf> {
        name::check_folder(name)?;
        Ok(self.root.join(name))
    }
}

/// How every file is opened: for its owner only, and never through a link.
pub(super) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(CAUTIOUS);
    options
}

/// Never through a link, and without waiting for whoever is at the other end of a fifo.
const CAUTIOUS: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;

/// Opens a file of ours that others may have put something else in the place of: a link, a fifo and a device are errors.
pub fn open_plain(path: &Path) -> Result<fs::File> {
    plain(OpenOptions::new().read(true).custom_flags(CAUTIOUS).open(path)?)
}

/// Reads a whole file of ours that has no more than `limit` bytes; see [`open_plain`].
pub fn read_plain(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = LocalFile(open_plain(path)?);
    match file.len()? {
        len if len > limit => Err(Error::new(
            ErrorKind::FileTooLarge,
            format!("{len} bytes, which is more than the {limit} of any of ours"),
        )),
        _ => read_whole(&file),
    }
}

/// A file up to this length is read whatever it is, bytes.
const ANY_BYTES: u64 = 1 << 30;

/// Reads a whole file. What was written there is as long as it is, without a limit; but anybody makes a file long that
/// has nothing in it, and such a one takes memory that it takes no disk for: a long one of which less than half was
/// written is an error, as is one for which there is no memory.
pub fn read_whole(file: &dyn File) -> Result<Vec<u8>> {
    read_whole_above(file, ANY_BYTES)
}

fn read_whole_above(file: &dyn File, any_bytes: u64) -> Result<Vec<u8>> {
    let len = file.len()?;
    // A disk that cannot say is believed: what it says wrong, reading it shows.
    if len > any_bytes && file.holes().is_ok_and(|holes| holes > len / 2) {
        return Err(Error::new(ErrorKind::FileTooLarge, format!("{len} bytes, most of which were never written")));
    }
    let no_room = |_| Error::new(ErrorKind::OutOfMemory, format!("{len} bytes, for which there is no memory"));
    let count = usize::try_from(len).map_err(|_| Error::from(ErrorKind::FileTooLarge))?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(count).map_err(no_room)?;
    bytes.resize(count, 0);
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Whether this is a folder, or a link to one that this user or root has put in its place, as to another disk.
pub fn is_own_folder(path: &Path) -> Result<bool> {
    Ok(match fs::symlink_metadata(path)? {
        found if is_own_link(&found) => {
            let led_to = fs::metadata(path)?;
            led_to.is_dir() && is_own(&led_to)
        }
        found => found.is_dir(),
    })
}

/// Whether this is a link of this user's or of root's: those do not need links to lead us anywhere.
pub fn is_own_link(found: &fs::Metadata) -> bool {
    found.is_symlink() && is_own(found)
}

fn is_own(found: &fs::Metadata) -> bool {
    found.uid() == 0 || found.uid() == nix::unistd::geteuid().as_raw()
}

fn plain(file: fs::File) -> Result<fs::File> {
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(Error::new(ErrorKind::InvalidInput, "it is not a regular file")),
    }
}

impl Media for LocalDisk {
    fn create(&self, name: &str) -> Result<Arc<dyn File>> {
        Ok(Arc::new(LocalFile(options().create_new(true).open(self.path(name)?)?)))
    }

    fn open(&self, name: &str) -> Result<Arc<dyn File>> {
        Ok(Arc::new(LocalFile(plain(options().open(self.path(name)?)?)?)))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        fs::rename(self.path(from)?, self.path(to)?)
    }

    fn remove(&self, name: &str) -> Result<()> {
        fs::remove_file(self.path(name)?)
    }

    fn make_dir(&self, name: &str) -> Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(self.folder(name)?)?;
        // Anybody else's link in the place of a folder would lead all that is put there to somewhere else.
        for folder in name::folders_down_to(name) {
            if !is_own_folder(&self.root.join(folder))? {
                let what =
                    format!("{folder} is not a folder, nor a link of this user's or root's to a folder of theirs");
                return Err(Error::new(ErrorKind::NotADirectory, what));
            }
        }
        Ok(())
    }

    fn list(&self, dir: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.folder(dir)?)? {
            let entry = entry?;
            // A name that is not UTF-8 is not ours: we never make one.
            if let (true, Ok(name)) = (entry.file_type()?.is_file(), entry.file_name().into_string()) {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn visit(&self, dir: &str, each: &mut dyn FnMut(FolderEntry<'_>)) -> Result<()> {
        for entry in fs::read_dir(self.folder(dir)?)? {
            let entry = entry?;
            let found = match entry.metadata() {
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                found => found?,
            };
            if let (true, Some(name)) = (found.is_file(), entry.file_name().to_str()) {
                let used = found.modified()?.max(found.accessed()?);
                each(FolderEntry { name, bytes: found.len(), used: used.into() });
            }
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> Result<()> {
        let folder = fs::File::open(self.folder(dir)?)?;
        sync(Canary::LocalDirSync, || folder.sync_all())
    }

    fn space(&self) -> Result<Space> {
        sys::space(&self.root)
    }

    fn local_path(&self, name: &str) -> Option<PathBuf> {
        self.path(name).ok()
    }
}

/// The disk begins with so much of a file once it is there, while what follows is copied: a sync to come then has little
/// to wait for. No less, for a large page that is written out half full is written out again.
const WRITE_OUT_BYTES: u64 = 2 << 20;

struct LocalFile(fs::File);

impl File for LocalFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn read_resident_at(&self, buf: &mut [u8], offset: u64) -> bool {
        sys::read_resident(&self.0, buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        match self.0.write_all_at(buf, offset) {
            Err(e) if e.kind() == ErrorKind::WriteZero => return Err(ErrorKind::StorageFull.into()),
            done => done?,
        }
        let begun = |at: u64| at - at % WRITE_OUT_BYTES;
        let (start, end) = (begun(offset), begun(offset + buf.len() as u64));
        if start < end {
            sys::start_write_out(&self.0, start, end - start);
        }
        Ok(())
    }

    /// fdatasync: the data, and of the metadata just what is needed to read it back, so also the length.
    fn sync(&self) -> Result<()> {
        sync(Canary::LocalSync, || self.0.sync_data())
    }

    fn len(&self) -> Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    /// Asks the disk where data ends and begins again. One that does not know says that all is data.
    fn holes(&self) -> Result<u64> {
        let (len, mut at, mut holes) = (self.len()?, 0, 0);
        let next = |from: u64, what| match lseek(&self.0, i64::try_from(from).map_err(Error::other)?, what) {
            Ok(found) => Ok(u64::try_from(found).map_err(Error::other)?),
            // Nothing of the kind follows.
            Err(Errno::ENXIO) => Ok(len),
            Err(e) => Err(Error::from(e)),
        };
        while at < len {
            let data = next(at, Whence::SeekData)?;
            holes += data.min(len) - at;
            at = if data < len { next(data, Whence::SeekHole)? } else { len };
        }
        Ok(holes)
    }

    fn forget_cached(&self) -> Result<()> {
        use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
        // A disk without a page cache has nothing to forget, and some refuse the advice.
        let _ = posix_fadvise(&self.0, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> (tempfile::TempDir, LocalDisk) {
        let root = tempfile::tempdir().expect("a folder for the test");
        let disk = LocalDisk::new(root.path());
        (root, disk)
    }

    #[test]
    fn what_is_written_is_read_back_and_grows_the_file() {
        let (_root, disk) = disk();
        disk.make_dir("journal/deep").expect("made");
        disk.make_dir("journal").expect("no error if it exists");
        let file = disk.create("journal/slot").expect("new");
        file.write_at(b"tail", 10).expect("written");
        file.sync().expect("synced");
        disk.sync_dir("journal").expect("synced");
        assert_eq!(file.len().expect("known"), 14);

        let mut found = [1; 14];
        disk.open("journal/slot").expect("there").read_at(&mut found, 0).expect("read");
        assert_eq!(&found, b"\0\0\0\0\0\0\0\0\0\0tail");
        assert_eq!(file.read_at(&mut found, 1).expect_err("too short").kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_long_file_is_read_if_it_was_written_and_an_empty_one_takes_no_memory() {
        const LONG: u64 = 1 << 20;
        let (root, disk) = disk();
        let written = disk.create("written").expect("new");
        written.write_at(&vec![7; 3 << 20], 0).expect("written");
        assert_eq!(written.holes().expect("known"), 0);
        assert_eq!(read_whole_above(&*written, LONG).expect("read"), vec![7; 3 << 20]);

        let sparse = disk.create("sparse").expect("new");
        for (offset, holes) in [(LONG, LONG), (3 << 20, 3 << 20)] {
            sparse.write_at(&[1], offset).expect("written");
            fs::File::options()
                .write(true)
                .open(root.path().join("sparse"))
                .expect("there")
                .set_len(8 << 20)
                .expect("long");
            assert!(sparse.holes().expect("known") >= holes);
        }
        assert_eq!(read_whole_above(&*sparse, LONG).expect_err("empty").kind(), ErrorKind::FileTooLarge);
        assert_eq!(read_whole_above(&*sparse, 8 << 20).expect("not long").len(), 8 << 20);
    }

    #[test]
    fn a_file_that_was_only_made_long_is_refused_however_long() {
        let (root, disk) = disk();
        for len in [(1_u64 << 30) + 1, 1 << 42] {
            fs::File::create(root.path().join("long")).expect("made").set_len(len).expect("long");
            let refused = read_whole(&*disk.open("long").expect("there")).expect_err("refused").to_string();
            assert!(refused.contains("never written"), "{refused}");
        }
    }

    #[test]
    fn what_was_just_written_is_read_without_waiting_and_nothing_is_read_past_the_end() {
        let root = tempfile::tempdir_in("/var/tmp").expect("a folder on a disk");
        let file = LocalDisk::new(root.path()).create("slot").expect("new");
        file.write_at(&[7; 5000], 0).expect("written");
        let mut found = [0; 1000];
        assert!(file.read_resident_at(&mut found, 4000));
        assert_eq!(found, [7; 1000]);
        assert!(!file.read_resident_at(&mut found, 4001), "fewer bytes than asked for");
    }

    #[test]
    fn a_file_is_created_only_once() {
        let (_root, disk) = disk();
        disk.create("a").expect("new");
        assert_eq!(disk.create("a").err().expect("taken").kind(), ErrorKind::AlreadyExists);
        assert_eq!(disk.open("b").err().expect("missing").kind(), ErrorKind::NotFound);
        assert_eq!(disk.remove("b").expect_err("missing").kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_rename_replaces_and_may_move_to_another_folder() {
        let (_root, disk) = disk();
        disk.create("a").expect("new").write_at(b"a", 0).expect("written");
        disk.create("b").expect("new");
        disk.rename("a", "b").expect("renamed");
        assert_eq!(disk.list("").expect("listed"), ["b"]);
        assert_eq!(disk.open("b").expect("there").len().expect("known"), 1);
        assert_eq!(disk.rename("b", "../b").expect_err("outside").kind(), ErrorKind::InvalidInput);
        assert_eq!(disk.rename("b", "x/b").expect_err("no folder").kind(), ErrorKind::NotFound);
        disk.make_dir("x").expect("made");
        disk.rename("b", "x/b").expect("moved");
        assert_eq!((disk.list("").expect("listed"), disk.list("x").expect("listed")), (vec![], vec!["b".to_owned()]));
    }

    #[test]
    fn a_list_is_sorted_and_has_files_only() {
        let (_root, disk) = disk();
        disk.make_dir("folder").expect("made");
        for name in ["c", "a", "b"] {
            disk.create(name).expect("new");
        }
        assert_eq!(disk.list("").expect("listed"), ["a", "b", "c"]);
    }

    #[test]
    fn a_visit_shows_files_with_their_lengths_and_nothing_else() {
        let (root, disk) = disk();
        disk.make_dir("folder").expect("made");
        let before = crate::base::clock::Time::from(root.path().metadata().expect("there").modified().expect("known"));
        for (name, len) in [("a", 0), ("b", 5000)] {
            disk.create(name).expect("new").write_at(&vec![1; len], 0).expect("written");
        }
        std::os::unix::fs::symlink("a", root.path().join("planted")).expect("linked");
        let mut found = Vec::new();
        disk.visit("", &mut |entry| {
            assert!(entry.used >= before);
            found.push((entry.name.to_owned(), entry.bytes));
        })
        .expect("visited");
        found.sort_unstable();
        assert_eq!(found, [("a".to_owned(), 0), ("b".to_owned(), 5000)]);
        assert_eq!(disk.visit("none", &mut |_| ()).expect_err("missing").kind(), ErrorKind::NotFound);
    }

    #[test]
    fn names_outside_the_root_and_planted_links_are_refused() {
        let (root, disk) = disk();
        for bad in ["../x", "/tmp/x", "a/../../x"] {
            assert_eq!(disk.create(bad).err().expect("refused").kind(), ErrorKind::InvalidInput);
            assert_eq!(disk.sync_dir(bad).expect_err("refused").kind(), ErrorKind::InvalidInput);
        }
        std::os::unix::fs::symlink("/etc/passwd", root.path().join("planted")).expect("linked");
        assert!(disk.open("planted").is_err());
    }

    #[test]
    fn free_room_is_part_of_the_whole() {
        let (_root, disk) = disk();
        let space = disk.space().expect("known");
        assert!(space.total > 0 && space.free <= space.total);
    }
}
