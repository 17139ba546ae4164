//! The tail of a generation: batches that its log increments carry and no window has yet.
//!
//! A takeover finds it in the store, and puts it into a file beside the checkpoint that it makes, which names it. The mount
//! brings it into the journal from there, under the Lsns that it has, before the first new batch. From then on these are
//! batches like others: the next window ships them. So a crash on the way finds file and journal, and goes on.

use super::{MountError, damaged};
use crate::checkpoint::files::tail_file;
use crate::format::FormatError;
use crate::format::batch::Batch;
use crate::format::checkpoint::{Checkpoint, TailFile};
use crate::format::ids::Lsn;
use crate::format::names;
use crate::format::publication::{Body, Log, LogBatch, Position};
use crate::journal::{FILLER_BYTES, Journal, PendingBatch, Writer};
use crate::media::{File, Media};
use crate::ship::publish::read;
use crate::store::Store;
use bytes::Bytes;
use std::io::ErrorKind;
use std::sync::Arc;

/// Bytes of logs that are kept in memory; those that would be more are read again when they are needed.
const HELD_MAX: usize = if cfg!(test) { 256 << 10 } else { 32 << 20 };
/// Bytes of the file that are written or read at a time.
const PIECE_BYTES: usize = if cfg!(test) { 10 << 10 } else { 1 << 20 };

/// What log increments carry beyond the newest window.
#[derive(Default)]
pub struct Tail {
    parts: Vec<Part>,
    /// Bytes in memory.
    held: usize,
}

/// What one numbered object adds.
struct Part {
    at: Position,
    /// Its last batch.
    last: Lsn,
    /// Bytes of journal that it takes.
    bytes: u64,
    /// Nothing if it is to be read again.
    log: Option<Log>,
}

impl Tail {
    /// Behind a base that ends at `end`.
    pub fn of_base(at: Position, end: Lsn, log: Log) -> Result<Tail, MountError> {
        let mut tail = Tail::default();
        tail.take(at, end, log)?;
        Ok(tail)
    }

    /// A window that ends there has what the tail has up to there.
    pub fn supersede(&mut self, window: Lsn) {
        self.parts.retain(|part| part.last > window);
        self.held = self.parts.iter().map(Part::held).sum();
    }

    /// Goes on by what the object at a number carries; the newest window ends at `window`. That no number is missing says that no
    /// batch is.
    pub fn take(&mut self, at: Position, window: Lsn, log: Log) -> Result<(), MountError> {
        let before = self.end().unwrap_or(window);
        let (mut last, mut batches, mut bytes) = (before, 0, 0);
        each_after(at, &log, &mut last, &mut |batch| {
            batches += 1;
            bytes += batch.encoded.len() as u64;
            Ok(())
        })?;
        if last > before {
            bytes = (last.pos - before.pos - batches).saturating_mul(FILLER_BYTES).saturating_add(bytes);
            let log = Some(log).filter(|log| self.held + log.batches.len() <= HELD_MAX);
            let part = Part { at, last, bytes, log };
            self.held += part.held();
            self.parts.push(part);
        }
        Ok(())
    }

    /// The last batch, if there is any.
    pub fn end(&self) -> Option<Lsn> {
        self.parts.last().map(|part| part.last)
    }

    /// Bytes of journal that it takes, at most.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().fold(0, |sum, part| sum.saturating_add(part.bytes))
    }

    /// Shows each batch after `window`, in order.
    pub fn each(
        &self,
        store: &dyn Store,
        window: Lsn,
        visit: &mut dyn FnMut(LogBatch) -> Result<(), MountError>,
    ) -> Result<(), MountError> {
        let mut last = window;
        for part in &self.parts {
            match &part.log {
                Some(log) => each_after(part.at, log, &mut last, visit)?,
                None => each_after(part.at, &part.read_again(store)?, &mut last, visit)?,
            }
        }
        Ok(())
    }

    /// Writes the file beside checkpoint `number`, which ends where the newest window does; nothing if there is no tail. Its name
    /// is durable with that of the checkpoint's record, which is written after it.
    pub fn write(
        &self,
        media: &dyn Media,
        store: &dyn Store,
        window: Lsn,
        number: u64,
    ) -> Result<Option<TailFile>, MountError> {
        let Some(end) = self.end() else { return Ok(None) };
        let name = tail_file(number);
        match media.remove(&name) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
        let file = media.create(&name)?;
        let (mut bytes, mut piece) = (0, Vec::new());
        self.each(store, window, &mut |batch| {
            piece.extend_from_slice(&batch.encoded);
            if piece.len() >= PIECE_BYTES {
                file.write_at(&piece, bytes)?;
                bytes += piece.len() as u64;
                piece.clear();
            }
            Ok(())
        })?;
        file.write_at(&piece, bytes)?;
        bytes += piece.len() as u64;
        file.sync()?;
        Ok(Some(TailFile { end, bytes }))
    }
}

impl Part {
    fn held(&self) -> usize {
        self.log.as_ref().map_or(0, |log| log.batches.len())
    }

    fn read_again(&self, store: &dyn Store) -> Result<Log, MountError> {
        match read(store, self.at)?.map(|publication| publication.body) {
            Some(Body::Log(log)) => Ok(log),
            Some(Body::Base(base)) => Ok(base.log),
            _ => Err(damaged(&place(self.at), "is not what it was a moment ago")),
        }
    }
}

fn place(at: Position) -> String {
    names::publication(at.generation, at.number)
}

/// Shows each batch of a log after `last`, and moves that on.
fn each_after(
    at: Position,
    log: &Log,
    last: &mut Lsn,
    visit: &mut dyn FnMut(LogBatch) -> Result<(), MountError>,
) -> Result<(), MountError> {
    for batch in log.batches() {
        let batch = batch.map_err(|e| damaged(&place(at), format!("a bad batch: {e}")))?;
        if batch.batch.lsn > *last {
            check(&batch.batch, *last).map_err(|reason| damaged(&place(at), reason))?;
            *last = batch.batch.lsn;
            visit(batch)?;
        }
    }
    Ok(())
}

/// What a journal, and whoever owns the space map, lean on.
fn check(batch: &Batch, last: Lsn) -> Result<(), String> {
    let lsn = batch.lsn;
    if lsn.pos <= last.pos {
        return Err(format!("batch {lsn} does not follow batch {last}"));
    }
    match batch.edits.iter().all(|(tree, edit)| Log::carries(*tree, edit)) {
        true => Ok(()),
        false => Err(format!("batch {lsn} changes what no log may change")),
    }
}

/// Reads the file beside a checkpoint, some batches at a time.
pub(crate) struct TailReader {
    file: Arc<dyn File>,
    name: String,
    /// Bytes in all, and those that were read,
    bytes: u64,
    at: u64,
    /// of which these are left.
    rest: Bytes,
    last: Lsn,
    end: Lsn,
}

impl TailReader {
    /// The file that the record of a checkpoint names; `None` if there is none.
    pub fn open(media: &dyn Media, checkpoint: &Checkpoint) -> Result<Option<TailReader>, MountError> {
        let Some(tail) = checkpoint.tail else { return Ok(None) };
        let name = tail_file(checkpoint.number);
        let file = match media.open(&name) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Err(damaged(&name, "is missing")),
            Err(e) => return Err(e.into()),
        };
        let found = file.len()?;
        if found != tail.bytes {
            return Err(damaged(&name, format!("has {found} bytes where its checkpoint says {}", tail.bytes)));
        }
        let (rest, last, end) = (Bytes::new(), checkpoint.lsn, tail.end);
        Ok(Some(TailReader { file, name, bytes: tail.bytes, at: 0, rest, last, end }))
    }

    /// The next batch.
    pub fn next(&mut self) -> Result<Option<LogBatch>, MountError> {
        loop {
            if self.rest.is_empty() && self.at == self.bytes {
                return match self.last == self.end {
                    true => Ok(None),
                    false => Err(damaged(&self.name, format!("ends at {}, not at {}", self.last, self.end))),
                };
            }
            match LogBatch::first_of(&self.rest, self.last) {
                Err(FormatError::TooShort { .. }) if self.at < self.bytes => self.read_on()?,
                Err(e) => return Err(damaged(&self.name, format!("a bad batch: {e}"))),
                Ok(batch) => {
                    check(&batch.batch, self.last).map_err(|reason| damaged(&self.name, reason))?;
                    self.last = batch.batch.lsn;
                    self.rest = self.rest.slice(batch.encoded.len()..);
                    return Ok(Some(batch));
                }
            }
        }
    }

    fn read_on(&mut self) -> Result<(), MountError> {
        let left = usize::try_from(self.bytes - self.at).unwrap_or(usize::MAX);
        // As much again as a batch had too little: a long one is not read over and over.
        let more = left.min(PIECE_BYTES.max(self.rest.len()));
        let mut buffer = self.rest.to_vec();
        buffer.resize(self.rest.len() + more, 0);
        self.file.read_at(&mut buffer[self.rest.len()..], self.at)?;
        self.at += more as u64;
        self.rest = buffer.into();
        Ok(())
    }
}

/// Brings what the journal, which ends at `last`, lacks of a checkpoint's tail into it, and shows each of these batches.
/// Returns where the journal ends then.
pub(super) fn import(
    media: &dyn Media,
    checkpoint: &Checkpoint,
    mut last: Lsn,
    (journal, writer): (&Journal, &mut Writer),
    apply: &mut dyn FnMut(Batch),
) -> Result<Lsn, MountError> {
    if checkpoint.tail.is_none_or(|tail| tail.end <= last) {
        return Ok(last);
    }
    let Some(mut tail) = TailReader::open(media, checkpoint)? else { return Ok(last) };
    let (from, mut batches) = (last, 0);
    while let Some(next) = tail.next()? {
        if next.batch.lsn <= from {
            continue;
        }
        let objects = next.batch.objects.iter().enumerate().map(|(n, object)| (object.header, next.object(n)));
        let objects = objects.collect();
        let head = next.encoded.slice(..next.batch.head_len);
        last = next.batch.lsn;
        journal.import(writer, PendingBatch { lsn: last, head, objects, concerns_files: true })?;
        apply(next.batch);
        batches += 1;
    }
    log::info!("took {batches} changes that the writer before had brought into the store up to {last}");
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::batch::encode_head;

    fn log(lsns: &[(u32, u64)]) -> Log {
        let head = |&(epoch, pos): &(u32, u64)| encode_head(Lsn { epoch, pos }, 0, &[], &[], true);
        Log { batches: lsns.iter().flat_map(head).collect::<Vec<u8>>().into() }
    }

    fn taken(window: (u32, u64), logs: &[&[(u32, u64)]]) -> Result<Tail, MountError> {
        let mut tail = Tail::default();
        for (number, lsns) in (1..).zip(logs) {
            let window = Lsn { epoch: window.0, pos: window.1 };
            tail.take(Position { generation: 3, number }, window, log(lsns))?;
        }
        Ok(tail)
    }

    #[test]
    fn positions_go_on_across_epochs_and_each_takes_room() {
        for logs in [&[&[(2, 6), (3, 9)][..]][..], &[&[(2, 6)], &[(3, 9)]], &[&[(2, 6)], &[(2, 6), (3, 9)]]] {
            let tail = taken((1, 4), logs).expect("in order");
            assert_eq!((tail.end(), tail.bytes()), (Some(Lsn { epoch: 3, pos: 9 }), 5 * FILLER_BYTES));
        }
    }

    #[test]
    fn a_later_epoch_whose_positions_go_back_is_damage() {
        let logs: [&[&[(u32, u64)]]; 4] =
            [&[&[(3, 4)]], &[&[(3, 2)]], &[&[(2, 6), (3, 6)]], &[&[(2, 6)], &[(3, 5), (3, 9)]]];
        for logs in logs {
            let refused = taken((2, 4), logs).err().expect("refused").to_string();
            assert!(refused.contains("does not follow batch"), "{refused}");
        }
    }
}
