//! A remote store: each call runs on the caller's thread, its connections on the runtime's two.

use super::call::Call;
use super::env::Env;
use super::limits::{Limits, Way};
#[cfg(test)]
use super::pace::Pace;
use super::refusal::{Trouble, refused};
use super::wire::{Connector, Wire};
use super::{RemoteOptions, RemotePlace, build};
use crate::base::clock::{Clock, SystemClock};
use crate::store::{Created, OpenError, Store, StoreCounters, StoreError, name};
use bytes::Bytes;
use futures_util::future::{Either, select};
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path as Location;
use object_store::{Error, GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

/// An object larger than this is sent in parts,
const WHOLE_BYTES_MAX: usize = 16 << 20;
/// of this size, side by side.
const PART_BYTES: usize = 8 << 20;
/// A page of names is about that long, and has no more names than that.
const PAGE_BYTES: u64 = 1 << 20;
const PAGE_NAMES: usize = 5000;
/// Less would not tell a store that is away from one that takes its time.
const TIMEOUT_MIN: Duration = Duration::from_millis(100);
/// How often a create is tried that collides with another that may not have been made.
const COLLISIONS_MAX: usize = 4;

/// A remote store.
pub struct RemoteStore {
    store: Box<dyn ObjectStore>,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
    place: RemotePlace,
    /// What the names of all objects begin with; empty, or ends with `/`.
    prefix: String,
    uploads: usize,
    downloads: usize,
    limits: Limits,
    wire: Arc<Wire>,
    /// Whether nobody waits for an answer any more.
    abandoned: watch::Sender<bool>,
}

impl RemoteStore {
    /// The store at `place`. Asks it nothing yet.
    pub fn open(place: &RemotePlace, options: &RemoteOptions) -> Result<RemoteStore, OpenError> {
        RemoteStore::open_in(place, options, &Env::of_process(), Arc::new(SystemClock::new()))
    }

    /// The same with another environment and another clock.
    pub(super) fn open_in(
        place: &RemotePlace,
        options: &RemoteOptions,
        env: &Env,
        clock: Arc<dyn Clock>,
    ) -> Result<RemoteStore, OpenError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("skylog-store")
            .enable_all()
            .build()
            .map_err(|e| OpenError::Runtime(e.to_string()))?;
        let options = &RemoteOptions { request_timeout: options.request_timeout.max(TIMEOUT_MIN), ..options.clone() };
        let wire = Wire::new(clock, options, env.get("AWS_CA_BUNDLE"));
        let store = build::client(place, options, env, Connector(wire.clone())).map_err(OpenError::Remote)?;
        let prefix = if place.prefix.is_empty() { String::new() } else { format!("{}/", place.prefix) };
        Ok(RemoteStore {
            store,
            runtime: Some(runtime),
            place: place.clone(),
            prefix,
            uploads: options.uploads.get(),
            downloads: options.downloads.get(),
            limits: Limits::new(options, &wire),
            wire,
            abandoned: watch::Sender::new(false),
        })
    }

    /// The pace up and that down.
    #[cfg(test)]
    pub(super) fn paces(&self) -> [&Pace; 2] {
        [&self.wire.up, &self.wire.down]
    }

    fn locate(&self, action: &'static str, name: &str) -> Result<Location, StoreError> {
        name::check(action, name)?;
        self.location(action, name, format!("{}{name}", self.prefix))
    }

    fn location(&self, action: &'static str, name: &str, full: String) -> Result<Location, StoreError> {
        Location::parse(full).map_err(|e| StoreError::Failed { action, name: name.into(), reason: e.to_string() })
    }

    fn run<T>(
        &self,
        action: &'static str,
        name: &str,
        call: &Arc<Call>,
        work: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, StoreError> {
        let runtime = self.runtime.as_ref().expect("there until dropped");
        let mut abandoned = self.abandoned.subscribe();
        let end = pin!(abandoned.wait_for(|abandoned| *abandoned));
        let done = runtime.block_on(async {
            match select(end, pin!(call.run(work))).await {
                Either::Left(_) => Err(Trouble::Abandoned),
                Either::Right((done, _)) => done,
            }
        });
        done.map_err(|trouble| refused(action, name, &self.place, &trouble, call.answer()))
    }

    /// A range of an object, or all of it; never fewer bytes than the answer promised.
    async fn read(&self, at: &Location, range: Option<Range<u64>>) -> Result<Bytes, Trouble> {
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        let _turn = self.limits.turn(Way::Down).await?;
        let found = self.limits.within(Way::Down, 0, self.store.get_opts(at, options)).await?;
        let promised = found.range.end - found.range.start;
        let bytes = self.limits.within(Way::Down, promised, found.bytes()).await?;
        match bytes.len() as u64 == promised {
            true => Ok(bytes),
            false => Err(Trouble::Short(format!("{promised} bytes were promised, and {} came", bytes.len()))),
        }
    }

    async fn put_whole(&self, at: &Location, bytes: Bytes) -> Result<(), Trouble> {
        let len = bytes.len() as u64;
        self.limits.run(Way::Up, len, self.store.put(at, bytes.into())).await.map(drop)
    }

    /// Sends a large object in parts; takes back what it sent if one fails.
    fn put_parts(&self, at: &Location, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        let call = Arc::new(Call::default());
        let begin = self.limits.within(Way::Down, 0, self.store.put_multipart(at));
        let mut upload = self.run("put", name, &call, begin)?;
        let sent = self.run("put", name, &call, self.send_parts(upload.as_mut(), bytes));
        if sent.is_err() {
            // Whatever comes of it: the error to tell is the one before.
            let abort = self.limits.within(Way::Down, 0, upload.abort());
            let _ = self.run("put", name, &Arc::default(), abort);
        }
        sent
    }

    async fn send_parts(&self, upload: &mut dyn MultipartUpload, bytes: Bytes) -> Result<(), Trouble> {
        let starts = (0..bytes.len()).step_by(PART_BYTES);
        let parts = starts.map(|start| {
            let part = bytes.slice(start..bytes.len().min(start + PART_BYTES));
            self.limits.run(Way::Up, part.len() as u64, upload.put_part(part.into()))
        });
        let parts = parts.collect::<Vec<_>>();
        stream::iter(parts).buffer_unordered(self.uploads).try_collect::<()>().await?;
        self.limits.within(Way::Down, 0, upload.complete()).await.map(drop)
    }

    /// One try to create; `None` when it collided with another one, and there may be no object after all.
    async fn try_create(&self, call: &Call, at: &Location, bytes: Bytes) -> Result<Option<Created>, Trouble> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let len = bytes.len() as u64;
        match self.limits.run(Way::Up, len, self.store.put_opts(at, bytes.into(), options)).await {
            Ok(_) => Ok(Some(Created::New)),
            // Of some services this says that there is one, of others that two came at once.
            Err(Trouble::Client(Error::AlreadyExists { .. })) if call.status() == Some(409) => {
                match self.limits.run(Way::Down, 0, self.store.head(at)).await {
                    Ok(_) => Ok(Some(Created::Exists)),
                    Err(Trouble::Client(Error::NotFound { .. })) => Ok(None),
                    Err(e) => Err(e),
                }
            }
            Err(Trouble::Client(Error::AlreadyExists { .. })) => Ok(Some(Created::Exists)),
            Err(e) => Err(e),
        }
    }

    async fn create_one(&self, call: &Call, at: &Location, bytes: Bytes) -> Result<Created, Trouble> {
        for _ in 0..COLLISIONS_MAX {
            if let Some(created) = self.try_create(call, at, bytes.clone()).await? {
                return Ok(created);
            }
        }
        Err(Trouble::Short("others create the same object again and again".into()))
    }
}

impl Drop for RemoteStore {
    /// Waits for nobody: a name that is being looked up on a dead network would hold up an unmount.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Store for RemoteStore {
    fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        let at = self.locate("get", name)?;
        self.run("get", name, &Arc::default(), self.read(&at, None))
    }

    fn get_some(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        if range.is_empty() {
            return self.size(name).map(|_| Bytes::new());
        }
        let at = self.locate("get", name)?;
        let call = Arc::new(Call::default());
        match self.run("get", name, &call, self.read(&at, Some(range))) {
            // It begins at the object's end, or beyond.
            Err(_) if call.status() == Some(416) => Ok(Bytes::new()),
            got => got,
        }
    }

    fn size(&self, name: &str) -> Result<u64, StoreError> {
        let at = self.locate("get", name)?;
        let head = self.limits.run(Way::Down, 0, self.store.head(&at));
        self.run("get", name, &Arc::default(), head).map(|found| found.size)
    }

    fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        let at = self.locate("put", name)?;
        match bytes.len() > WHOLE_BYTES_MAX {
            true => self.put_parts(&at, name, bytes),
            false => self.run("put", name, &Arc::default(), self.put_whole(&at, bytes)),
        }
    }

    fn create(&self, name: &str, bytes: Bytes) -> Result<Created, StoreError> {
        let at = self.locate("create", name)?;
        let call = Arc::new(Call::default());
        self.run("create", name, &call, self.create_one(&call, &at, bytes))
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        let at = self.locate("delete", name)?;
        let delete = self.limits.run(Way::Down, 0, self.store.delete(&at));
        match self.run("delete", name, &Arc::default(), delete) {
            Err(StoreError::NotFound { .. }) => Ok(()),
            deleted => deleted,
        }
    }

    fn walk(&self, prefix: &str, each: &mut dyn FnMut(&str) -> ControlFlow<()>) -> Result<(), StoreError> {
        let prefix = prefix.trim_end_matches('/');
        let at = match prefix {
            "" => self.location("list", prefix, self.place.prefix.clone())?,
            _ => self.locate("list", prefix)?,
        };
        // What came with one answer is handed out as one, for each answer needs a turn.
        let mut pages = self.store.list(Some(&at)).try_ready_chunks(PAGE_NAMES).map_err(|e| e.1);
        let walked = async {
            while let Some(page) = self.limits.run(Way::Down, PAGE_BYTES, pages.try_next()).await? {
                for object in page {
                    let name = object.location.as_ref().strip_prefix(self.prefix.as_str());
                    if name.is_some_and(|name| each(name).is_break()) {
                        return Ok(());
                    }
                }
            }
            Ok(())
        };
        self.run("list", prefix, &Arc::default(), walked)
    }

    fn publish_local(&self, _file: &Path, name: &str) -> Result<bool, StoreError> {
        name::check("put", name).map(|()| false)
    }

    fn side_by_side(&self) -> usize {
        self.downloads
    }

    fn abandon(&self) {
        self.abandoned.send_replace(true);
    }

    fn counters(&self) -> Option<Arc<StoreCounters>> {
        Some(self.wire.counters.clone())
    }
}
