//! A file of the simulated disk.

use super::content::Patch;
use super::log::DiskCall;
use super::{DiskFault, DiskOp, Inode, Shared, State, deaf};
use crate::media::File;
use std::io::{ErrorKind, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A handle of a file; stays good when the file is renamed or removed.
pub(super) struct SimFile {
    disk: Arc<Shared>,
    inode: Arc<Inode>,
}

impl SimFile {
    pub(super) fn open(disk: &Arc<Shared>, inode: Arc<Inode>) -> Arc<dyn File> {
        let open = disk.open_files.fetch_add(1, Ordering::Relaxed) + 1;
        disk.open_files_max.fetch_max(open, Ordering::Relaxed);
        Arc::new(SimFile { disk: Arc::clone(disk), inode })
    }

    fn write(&self, state: &mut State, buf: &[u8], offset: u64) -> Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let mut inner = self.inode.inner.lock();
        let patch = Arc::new(Patch::new(buf, offset));
        let growth = patch.end().saturating_sub(inner.content.len());
        if inner.named {
            if state.used + growth > state.capacity {
                return Err(ErrorKind::StorageFull.into());
            }
            state.used += growth;
        }
        inner.content.apply(&patch);
        if let Some(lost) = &mut inner.lost {
            lost.apply(&patch);
        }
        self.disk.add(DiskCall::Write { file: self.inode.number, patch });
        Ok(())
    }

    fn name(&self) -> Arc<str> {
        Arc::clone(&self.inode.inner.lock().name)
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.disk.open_files.fetch_sub(1, Ordering::Relaxed);
    }
}

impl File for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.disk.call(DiskOp::Read, &self.name(), |_| {
            let whole = self.inode.inner.lock().content.read(buf, offset);
            if whole { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
        })
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let name = self.name();
        let mut state = self.disk.state.lock();
        match state.faults.strike(DiskOp::Write, &name) {
            None => self.write(&mut state, buf, offset),
            Some(fault @ (DiskFault::Failed | DiskFault::NoSpace)) => Err(fault.error()),
            Some(fault @ DiskFault::Short) => {
                self.write(&mut state, &buf[..buf.len() / 2], offset).and(Err(fault.error()))
            }
            Some(fault @ DiskFault::Done) => self.write(&mut state, buf, offset).and(Err(fault.error())),
        }
    }

    fn sync(&self) -> Result<()> {
        let (name, file) = (self.name(), self.inode.number);
        let meanwhile = self.disk.state.lock().while_syncing.take_if(|(prefix, _)| name.starts_with(prefix.as_str()));
        if let Some((_, meanwhile)) = meanwhile {
            meanwhile();
        }
        let mut state = self.disk.state.lock();
        let fault = state.faults.strike(DiskOp::Sync, &name);
        if fault.is_some_and(|fault| fault != DiskFault::Done) {
            self.disk.add(DiskCall::SyncFailed { file });
            let mut inner = self.inode.inner.lock();
            inner.lost = Some(inner.synced.clone());
        } else if !state.deaf_files.iter().any(|deaf| name.starts_with(deaf.as_str())) && !deaf::to_file(&name) {
            self.disk.add(DiskCall::Sync { file });
            let mut inner = self.inode.inner.lock();
            inner.synced = inner.lost.as_ref().unwrap_or(&inner.content).clone();
        }
        fault.map_or(Ok(()), |fault| Err(fault.error()))
    }

    fn forget_cached(&self) -> Result<()> {
        let mut inner = self.inode.inner.lock();
        if let Some(lost) = inner.lost.take() {
            inner.content = lost;
        }
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        Ok(self.inode.inner.lock().content.len())
    }
}
