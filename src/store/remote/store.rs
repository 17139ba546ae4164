//! A remote store: each call runs on the caller's thread, its connections on the runtime's two.

use super::refusal::refused;
use super::{RemoteOptions, RemotePlace, build};
use crate::store::{Created, OpenError, Store, StoreError, name};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path as Location;
use object_store::{Error, GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use std::ops::{ControlFlow, Range};
use std::path::Path;
use tokio::runtime::{Builder, Runtime};

/// An object larger than this is sent in parts,
const WHOLE_BYTES_MAX: usize = 16 << 20;
/// of this size, side by side.
const PART_BYTES: usize = 8 << 20;

/// A remote store.
pub struct RemoteStore {
    store: Box<dyn ObjectStore>,
    runtime: Runtime,
    /// What the names of all objects begin with; empty, or ends with `/`.
    prefix: String,
    uploads: usize,
}

impl RemoteStore {
    /// The store at `place`. Asks it nothing yet.
    pub fn open(place: &RemotePlace, options: &RemoteOptions) -> Result<RemoteStore, OpenError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("skylog-store")
            .enable_all()
            .build()
            .map_err(|e| OpenError::Runtime(e.to_string()))?;
        let store = build::client(place, options).map_err(OpenError::Remote)?;
        let prefix = if place.prefix.is_empty() { String::new() } else { format!("{}/", place.prefix) };
        Ok(RemoteStore { store, runtime, prefix, uploads: options.uploads.get() })
    }

    fn locate(&self, action: &'static str, name: &str) -> Result<Location, StoreError> {
        name::check(action, name)?;
        Location::parse(format!("{}{name}", self.prefix)).map_err(|e| StoreError::Failed {
            action,
            name: name.into(),
            reason: e.to_string(),
        })
    }

    fn run<T>(
        &self,
        action: &'static str,
        name: &str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, StoreError> {
        self.runtime.block_on(call).map_err(|e| refused(action, name, &e))
    }

    /// A range of an object, or all of it, and the object's length. Never fewer bytes than the answer promised.
    async fn read(&self, at: &Location, range: Option<Range<u64>>) -> Result<Bytes, Error> {
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        let found = self.store.get_opts(at, options).await?;
        let promised = found.range.end - found.range.start;
        let bytes = found.bytes().await?;
        if bytes.len() as u64 == promised {
            return Ok(bytes);
        }
        let source = format!("the store promised {promised} bytes and sent {}", bytes.len()).into();
        Err(Error::Generic { store: "remote", source })
    }

    async fn put_whole(&self, at: &Location, bytes: Bytes) -> Result<(), Error> {
        self.store.put(at, bytes.into()).await.map(drop)
    }

    /// Sends a large object in parts; takes back what it sent if one fails.
    async fn put_parts(&self, at: &Location, bytes: Bytes) -> Result<(), Error> {
        let mut upload = self.store.put_multipart(at).await?;
        let sent = self.send_parts(upload.as_mut(), bytes).await;
        if sent.is_err() {
            // Whatever comes of it: the error to tell is the one before.
            let _ = upload.abort().await;
        }
        sent
    }

    async fn send_parts(&self, upload: &mut dyn MultipartUpload, bytes: Bytes) -> Result<(), Error> {
        let starts = (0..bytes.len()).step_by(PART_BYTES);
        let part = |start: usize| bytes.slice(start..bytes.len().min(start + PART_BYTES));
        let parts = starts.map(|start| upload.put_part(part(start).into())).collect::<Vec<_>>();
        stream::iter(parts).buffer_unordered(self.uploads).try_collect::<()>().await?;
        upload.complete().await.map(drop)
    }
}

impl Store for RemoteStore {
    fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        let at = self.locate("get", name)?;
        self.run("get", name, self.read(&at, None))
    }

    fn get_some(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        if range.is_empty() {
            return self.size(name).map(|_| Bytes::new());
        }
        let at = self.locate("get", name)?;
        self.run("get", name, self.read(&at, Some(range)))
    }

    fn size(&self, name: &str) -> Result<u64, StoreError> {
        let at = self.locate("get", name)?;
        self.run("get", name, self.store.head(&at)).map(|found| found.size)
    }

    fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        let at = self.locate("put", name)?;
        match bytes.len() > WHOLE_BYTES_MAX {
            true => self.run("put", name, self.put_parts(&at, bytes)),
            false => self.run("put", name, self.put_whole(&at, bytes)),
        }
    }

    fn create(&self, name: &str, bytes: Bytes) -> Result<Created, StoreError> {
        let at = self.locate("create", name)?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let create = async {
            match self.store.put_opts(&at, bytes.into(), options).await {
                Ok(_) => Ok(Created::New),
                Err(Error::AlreadyExists { .. }) => Ok(Created::Exists),
                Err(e) => Err(e),
            }
        };
        self.run("create", name, create)
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        let at = self.locate("delete", name)?;
        match self.run("delete", name, self.store.delete(&at)) {
            Err(StoreError::NotFound { .. }) => Ok(()),
            deleted => deleted,
        }
    }

    fn walk(&self, prefix: &str, each: &mut dyn FnMut(&str) -> ControlFlow<()>) -> Result<(), StoreError> {
        let prefix = prefix.trim_end_matches('/');
        let at = match prefix {
            "" => Location::parse(self.prefix.trim_end_matches('/')).map_err(|e| StoreError::Failed {
                action: "list",
                name: prefix.into(),
                reason: e.to_string(),
            })?,
            _ => self.locate("list", prefix)?,
        };
        let mut found = self.store.list(Some(&at));
        let walked = async {
            while let Some(object) = found.try_next().await? {
                let name = object.location.as_ref().strip_prefix(self.prefix.as_str());
                if name.is_some_and(|name| each(name).is_break()) {
                    break;
                }
            }
            Ok(())
        };
        self.run("list", prefix, walked)
    }

    fn publish_local(&self, _file: &Path, name: &str) -> Result<bool, StoreError> {
        name::check("put", name).map(|()| false)
    }
}
