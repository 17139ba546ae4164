//! Large files: sparse, long, and written in no order.

use crate::{failed, figure, fill, mixed};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::unistd::{Whence, lseek};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

const MIB: u64 = 1 << 20;
/// One call reads or writes this much.
const BLOCK: usize = 1 << 20;
/// What stands in a sparse file, at each place.
const ISLAND: u64 = 64 << 10;
const ISLANDS: u64 = 40;
/// One random write.
const WRITE: usize = 4096;

fn open(path: &Path, new: bool) -> Result<File, String> {
    let opened = OpenOptions::new().read(true).write(true).create(new).truncate(new).open(path);
    opened.map_err(failed(path.display()))
}

/// What the kernel holds of a file would be read instead of the file.
fn drop_cached(file: &File) -> Result<(), String> {
    file.sync_all().map_err(failed("fsync"))?;
    posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).map_err(failed("fadvise"))
}

fn per_second(bytes: u64, begin: Instant) -> String {
    format!("{:.0}", bytes as f64 / 1e6 / begin.elapsed().as_secs_f64())
}

/// Calls `block` with each block of a file, in order; a file of any length costs no more memory than one block.
fn read_through(file: &File, len: u64, mut block: impl FnMut(u64, &[u8]) -> Result<(), String>) -> Result<(), String> {
    let mut buffer = vec![0; BLOCK];
    let mut at = 0;
    while at < len {
        let part = usize::try_from(len - at).map_or(BLOCK, |left| left.min(BLOCK));
        file.read_exact_at(&mut buffer[..part], at).map_err(failed(format_args!("read at {at}")))?;
        block(at, &buffer[..part])?;
        at += part as u64;
        if at % (256 * MIB) == 0 {
            posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).map_err(failed("fadvise"))?;
        }
    }
    Ok(())
}

/// Where the islands of a sparse file are: the first at its start, the last at its end.
fn islands(len: u64) -> Vec<u64> {
    (0..ISLANDS).map(|n| if n + 1 == ISLANDS { len - ISLAND } else { len / ISLANDS * n / 4096 * 4096 }).collect()
}

/// Writes data at a few places of a long file, asks where data is, and reads all of it.
pub fn sparse(path: &Path, mib: u64) -> Result<(), String> {
    let len = mib * MIB;
    let file = open(path, true)?;
    let mut island = vec![0; usize::try_from(ISLAND).expect("short")];
    for at in islands(len) {
        fill(at, &mut island);
        file.write_all_at(&island, at).map_err(failed(path.display()))?;
    }
    let ranges = data_ranges(&file, len)?;
    for at in islands(len) {
        if !ranges.iter().any(|(from, to)| *from <= at && at + ISLAND <= *to) {
            return Err(format!("SEEK_DATA does not find the data at {at}"));
        }
    }
    figure("data ranges", ranges.len());
    figure("bytes in data ranges", ranges.iter().map(|(from, to)| to - from).sum::<u64>());
    drop_cached(&file)?;
    let begin = Instant::now();
    let mut expected = vec![0; BLOCK];
    read_through(&file, len, |at, found| {
        expected.fill(0);
        for from in islands(len).into_iter().filter(|from| *from < at + BLOCK as u64 && from + ISLAND > at) {
            fill(from, &mut island);
            for (n, byte) in island.iter().enumerate() {
                if let Some(offset) = (from + n as u64).checked_sub(at).filter(|offset| *offset < BLOCK as u64) {
                    expected[usize::try_from(offset).expect("in a block")] = *byte;
                }
            }
        }
        if found == &expected[..found.len()] {
            Ok(())
        } else {
            Err(format!("the block at {at} is not what was written"))
        }
    })?;
    figure("read MB/s", per_second(len, begin));
    Ok(())
}

/// What SEEK_DATA and SEEK_HOLE say of a file.
fn data_ranges(file: &File, len: u64) -> Result<Vec<(u64, u64)>, String> {
    let seek = |from: u64, whence| lseek(file, i64::try_from(from).expect("a file's offset"), whence);
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < len {
        let from = match seek(at, Whence::SeekData) {
            Ok(from) => u64::try_from(from).expect("not negative"),
            Err(nix::errno::Errno::ENXIO) => break,
            Err(e) => return Err(format!("SEEK_DATA: {e}")),
        };
        let to = seek(from, Whence::SeekHole).map_err(failed("SEEK_HOLE"))?;
        at = u64::try_from(to).expect("not negative");
        ranges.push((from, at));
    }
    Ok(ranges)
}

/// Writes a long file in order and reads it back.
pub fn big(path: &Path, mib: u64) -> Result<(), String> {
    let file = open(path, true)?;
    let mut block = vec![0; BLOCK];
    let mut written = 0;
    let begin = Instant::now();
    for n in 0..mib {
        fill(n, &mut block);
        written = crc32c::crc32c_append(written, &block);
        file.write_all_at(&block, n * MIB).map_err(failed(path.display()))?;
    }
    file.sync_all().map_err(failed("fsync"))?;
    figure("write MB/s", per_second(mib * MIB, begin));
    drop_cached(&file)?;
    let begin = Instant::now();
    let mut read = 0;
    read_through(&file, mib * MIB, |_, found| {
        read = crc32c::crc32c_append(read, found);
        Ok(())
    })?;
    figure("read MB/s", per_second(mib * MIB, begin));
    if read == written { Ok(()) } else { Err(format!("checksum {read:08x} was read, {written:08x} was written")) }
}

/// Where the `n`th random write goes: at any byte, so that extents are cut in every way.
fn target(n: u64, mib: u64) -> u64 {
    mixed(n ^ 0x7363_616c_6500_0000) % (mib * MIB - WRITE as u64)
}

/// What a file of random writes holds in the end.
fn model(writes: u64, mib: u64) -> Vec<u8> {
    let mut model = vec![0; usize::try_from(mib * MIB).expect("fits in memory")];
    for n in 0..writes {
        let at = usize::try_from(target(n, mib)).expect("in the model");
        fill(n, &mut model[at..at + WRITE]);
    }
    let end = (0..writes).map(|n| target(n, mib)).max().map_or(0, |at| at + WRITE as u64);
    model.truncate(usize::try_from(end).expect("in the model"));
    model
}

/// Writes 4 KiB at random places, then reads all of it.
pub fn random(path: &Path, writes: u64, mib: u64) -> Result<(), String> {
    let file = open(path, true)?;
    let mut data = vec![0; WRITE];
    let begin = Instant::now();
    for n in 0..writes {
        fill(n, &mut data);
        file.write_all_at(&data, target(n, mib)).map_err(failed(path.display()))?;
    }
    figure("writes per second", format!("{:.0}", writes as f64 / begin.elapsed().as_secs_f64()));
    same(path, writes, mib)
}

/// Reads a file of random writes and compares every byte.
pub fn same(path: &Path, writes: u64, mib: u64) -> Result<(), String> {
    let file = open(path, false)?;
    let model = model(writes, mib);
    let len = file.metadata().map_err(failed(path.display()))?.len();
    if len != model.len() as u64 {
        return Err(format!("{} has {len} bytes, not {}", path.display(), model.len()));
    }
    drop_cached(&file)?;
    let begin = Instant::now();
    read_through(&file, len, |at, found| {
        let from = usize::try_from(at).expect("in the model");
        match found == &model[from..from + found.len()] {
            true => Ok(()),
            false => Err(format!("the block at {at} of {} is not what was written", path.display())),
        }
    })?;
    figure("read MB/s", per_second(len, begin));
    Ok(())
}
