//! Directories of many names.

use crate::{failed, figure, fill, mixed, watch};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Makes one directory of empty files. Scattered names come in no order, so that each lies elsewhere in the directory's map.
/// `pid` is the daemon, whose processor time tells more than the clock when the machine is busy with other things.
pub fn wide(dir: &Path, files: u64, scattered: bool, pid: &str) -> Result<(), String> {
    fs::create_dir(dir).map_err(failed(dir.display()))?;
    let (mut tenths, mut daemon) = (Vec::new(), Vec::new());
    let begin = Instant::now();
    for tenth in 0..10 {
        let (tenth_began, ticks) = (Instant::now(), watch::ticks(pid).unwrap_or(0));
        for n in files * tenth / 10..files * (tenth + 1) / 10 {
            let name = if scattered { format!("{:016x}-{n}", mixed(n)) } else { format!("a name with number {n:08}") };
            let path = dir.join(name);
            File::create_new(&path).map_err(failed(path.display()))?;
        }
        tenths.push(tenth_began.elapsed().as_secs_f64());
        daemon.push(watch::ticks(pid).unwrap_or(0) - ticks);
    }
    let share = files as f64 / 10.0;
    let rates: Vec<String> = tenths.iter().map(|seconds| format!("{:.0}", share / seconds)).collect();
    // A tick is ten milliseconds.
    let costs: Vec<String> = daemon.iter().map(|ticks| format!("{:.1}", *ticks as f64 * 1e4 / share)).collect();
    figure("creates per second", format!("{:.0}", files as f64 / begin.elapsed().as_secs_f64()));
    figure("each tenth", rates.join(" "));
    figure("daemon's us per create in each tenth", costs.join(" "));
    figure("last tenth to first", format!("{:.2}", tenths[9] / tenths[0]));
    Ok(())
}

/// Where file `n` of a deep tree is.
fn place(dir: &Path, n: u64, files: u64, folders: u64) -> PathBuf {
    dir.join(format!("{:04}", n / files.div_ceil(folders))).join(format!("file-{n}"))
}

/// What is in it: three of four are empty, one of sixteen is too long to be kept beside its attributes.
fn contents(n: u64) -> Vec<u8> {
    let len = match n % 16 {
        0 | 4 | 8 => 100 + mixed(n) % 1901,
        12 => 2049 + mixed(n) % 4000,
        _ => 0,
    };
    let mut bytes = vec![0; usize::try_from(len).expect("a short file")];
    fill(n, &mut bytes);
    bytes
}

/// Makes a tree of files, some with a few bytes in them.
pub fn deep(dir: &Path, files: u64, folders: u64) -> Result<(), String> {
    fs::create_dir(dir).map_err(failed(dir.display()))?;
    let begin = Instant::now();
    for n in 0..files {
        let path = place(dir, n, files, folders);
        if n % files.div_ceil(folders) == 0 {
            let folder = path.parent().expect("a file lies in a folder");
            fs::create_dir(folder).map_err(failed(folder.display()))?;
        }
        let mut file = File::create_new(&path).map_err(failed(path.display()))?;
        let bytes = contents(n);
        if !bytes.is_empty() {
            file.write_all(&bytes).map_err(failed(path.display()))?;
        }
    }
    figure("files per second", format!("{:.0}", files as f64 / begin.elapsed().as_secs_f64()));
    Ok(())
}

/// Compares some files of a deep tree with what was written.
pub fn verify(dir: &Path, files: u64, folders: u64, samples: u64) -> Result<(), String> {
    for sample in 0..samples.min(files) {
        // Every fourth has contents.
        let n = (mixed(sample) % files) & !u64::from(sample % 8 != 0).wrapping_mul(3);
        let path = place(dir, n, files, folders);
        let wanted = contents(n);
        let file = File::open(&path).map_err(failed(path.display()))?;
        let mut found = vec![0; wanted.len()];
        file.read_exact_at(&mut found, 0).map_err(failed(path.display()))?;
        let len = file.metadata().map_err(failed(path.display()))?.len();
        if found != wanted || len != wanted.len() as u64 {
            return Err(format!("{} is not what was written", path.display()));
        }
    }
    figure("files verified", samples.min(files));
    Ok(())
}

/// Files that are written over and over.
const CHURNED: u64 = 1000;

fn churned_file(dir: &Path, n: u64) -> PathBuf {
    dir.join(format!("churned-{}", n % CHURNED))
}

/// Writes 100 bytes again and again to the same files, so that there is much to replay and little to checkpoint; ends when
/// all of it is durable.
pub fn churn(dir: &Path, writes: u64) -> Result<(), String> {
    fs::create_dir(dir).map_err(failed(dir.display()))?;
    let begin = Instant::now();
    let mut files = Vec::new();
    for n in 0..CHURNED {
        let path = churned_file(dir, n);
        files.push(File::create_new(&path).map_err(failed(path.display()))?);
    }
    let mut bytes = [0; 100];
    for n in 0..writes {
        fill(n, &mut bytes);
        let file = &files[usize::try_from(n % CHURNED).expect("few files")];
        file.write_all_at(&bytes, 0).map_err(failed(churned_file(dir, n).display()))?;
    }
    files[0].sync_all().map_err(failed("fsync"))?;
    figure("writes per second", format!("{:.0}", writes as f64 / begin.elapsed().as_secs_f64()));
    Ok(())
}

/// Whether each of these files holds what was written last.
pub fn churned(dir: &Path, writes: u64) -> Result<(), String> {
    for n in writes - CHURNED.min(writes)..writes {
        let (path, mut wanted) = (churned_file(dir, n), [0; 100]);
        fill(n, &mut wanted);
        if fs::read(&path).map_err(failed(path.display()))? != wanted {
            return Err(format!("{} is not what was written last", path.display()));
        }
    }
    figure("files verified", CHURNED.min(writes));
    Ok(())
}
