//! Layer 6: from what is on disk and in the store to a filesystem that can be written.
//!
//! Passes of a mount, in order; each may be done again after a crash in the middle of it:
//!
//! | pass | needs | does |
//! |---|---|---|
//! | superblock | store, or what the caller knows of it | checks format version, features, UUID |
//! | takeover | no local state, nobody who holds it | reads the newest generation, makes local state of it, wins it with a closing object |
//! | checkpoint | manifest | reads the roots |
//! | replay | journal segments | later batches over the roots; reads only |
//! | accept | the replayed end | syncs what was accepted, records its end, starts this mount's first segment |
//! | import | checkpoint of a takeover | what log increments carried after it goes into the journal |
//! | resume | store | takes up what earlier lives published |
//! | hold | the fence | says in the store who holds the filesystem from now on |
//! | settle | checkpoint | what the last merge learned and no batch says yet |
//!
//! When the store is away, a mount with local state goes on without it: the pass `resume` is put off until the store
//! answers, as the first job of the shipper (`checkpoint/startup.rs`).

mod ahead;
mod configuration;
mod fetch;
mod hold;
mod mkfs;
mod numbers;
mod reader;
mod tail;
mod takeover;
mod withdrawn;

use crate::base::canary::{self, Canary};
pub(crate) use ahead::PublicationsAhead;
use configuration::has_begun_repair;
pub use configuration::superblock;
pub(crate) use configuration::{configuration, not_local};
pub use fetch::{Fetched, Fetcher};
pub(crate) use hold::{Asker, Before, ask};
pub use hold::{Hold, HoldError, Holding};
pub use mkfs::{MkfsOptions, mkfs};
pub(crate) use numbers::{first_free, newest_base, newest_generation};
use reader::Needed;
pub(crate) use reader::Reader;
pub use tail::Tail;
pub(crate) use tail::TailReader;
pub use takeover::{Remote, read_remote};
pub use withdrawn::WITHDRAWN;

use crate::base::clock::Clock;
use crate::base::random::Random;
use crate::cache::{self, Cache, Keeper};
use crate::checkpoint::nodes::{NODES, NodeStore};
use crate::checkpoint::{self, CheckpointError, Checkpointer, Desk, Policy, files};
use crate::format::batch::{Batch, TreeId};
use crate::format::ids::{Lsn, Nonce, Uuid};
use crate::format::lease::Owner;
use crate::format::manifest::Manifest;
use crate::format::names::SUPERBLOCK;
use crate::format::publication::{Position, Publication};
use crate::format::repair_file::REPAIR_FILE;
use crate::format::space::{self, Mark, Published};
use crate::format::superblock::{Superblock, SuperblockError};
use crate::journal::{self, JournalError, ManifestError, ManifestStore, Writer};
use crate::locate::{CacheBytes, Locate, SegmentReader};
use crate::map::{Db, Limits, MapError, NodeCache, Overlay, Start, View};
use crate::media::Media;
use crate::ship::publish::{Identity, Past, Publisher};
use crate::ship::{self, ShipError, Shipper, Syncer};
use crate::store::{Store, StoreError};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Why a filesystem could not be made or mounted. Each is one sentence for the user.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// There is no store of ours.
    #[error("there is no skylog filesystem here ({SUPERBLOCK} is missing); to make one, run: skylog mkfs STORE")]
    NotAStore,
    /// There is something else.
    #[error("refusing to make a filesystem: {0}")]
    Occupied(String),
    /// The configuration object is damaged, foreign or newer.
    #[error("{SUPERBLOCK}: {0}")]
    Superblock(#[from] SuperblockError),
    /// The state directory belongs to something else.
    #[error("the state directory belongs to filesystem {found}, not {expected}; give another one with --state DIR")]
    ForeignState {
        /// The UUID in the manifest,
        found: Uuid,
        /// and in the store.
        expected: Uuid,
    },
    /// What was published from this state directory is not what it holds: it is an old copy.
    #[error(
        "the state directory is an old copy: another one of it has published batches up to {published} that this one does \
         not hold; to mount what the store has, use another --state DIR"
    )]
    OldState {
        /// Published up to here.
        published: Lsn,
    },
    /// There is a journal and nothing that says how to read it.
    #[error(
        "the state directory holds journal segments and no MANIFEST; put MANIFEST back, or run: skylog check --repair STORE"
    )]
    NoManifest,
    /// A repair did not come to its end.
    #[error(
        "a repair was begun and is not completed ({REPAIR_FILE} is in the state directory); run: skylog check --repair STORE"
    )]
    Unrepaired,
    /// Stored bytes are not what they should be.
    #[error("{place}: {reason}; run: skylog check --repair STORE")]
    Damaged {
        /// The object or file.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// The store is away, and opening needs something that only the store has.
    #[error(
        "the store does not answer and this state directory alone does not hold {what}; mount again when the store is \
         back ({reason})"
    )]
    NotLocal {
        /// What is not here.
        what: &'static str,
        /// How the store does not answer.
        reason: String,
    },
    /// Somebody else owns the filesystem now.
    #[error(
        "{0}; `skylog salvage STATE OUT` writes out what only this state directory has, another --state DIR mounts what the \
         store has"
    )]
    Fenced(ShipError),
    /// The same, and all that this state directory has is in the store.
    #[error(transparent)]
    Outlived(ShipError),
    /// Somebody else holds it.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// Another mount took over at the same moment, again and again.
    #[error("other mounts keep taking this filesystem over; unmount them first")]
    Contended,
    /// The journal could not be replayed or opened.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The manifest cannot be read or changed.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A checkpoint could not be read, made or taken up.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A tree node could not be read.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The store did not do what was asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Shipping could not go on where it was.
    #[error(transparent)]
    Ship(ShipError),
    /// The cache folder could not be read or made.
    #[error("the folder of cache files cannot be used: {0}; give another one with --cache-dir DIR")]
    Cache(io::Error),
    /// The state directory could not be read or written.
    #[error("state directory: {0}")]
    Disk(#[from] io::Error),
}

impl From<ShipError> for MountError {
    fn from(e: ShipError) -> MountError {
        match e {
            ShipError::Fenced { .. } => MountError::Fenced(e),
            ShipError::OldState { published } => MountError::OldState { published },
            ShipError::Damaged { place, reason } => MountError::Damaged { place, reason },
            ShipError::Store(e) => MountError::Store(e),
            other => MountError::Ship(other),
        }
    }
}

/// The world a filesystem runs in.
#[derive(Clone)]
pub struct World {
    /// The state directory.
    pub media: Arc<dyn Media>,
    /// The disk of cache files: the state directory's, unless asked otherwise.
    pub cache_media: Arc<dyn Media>,
    /// The store.
    pub store: Arc<dyn Store>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// What is known of the store's configuration already.
    pub known: Option<Known>,
}

/// What the caller knows of a store's configuration. A remote store that is away takes long to say so: nobody asks it twice.
#[derive(Clone, Debug)]
pub enum Known {
    /// The store said so a moment ago.
    Answered(Superblock),
    /// The store did not answer a moment ago, for this reason; this is how it was seen last.
    Away(Superblock, String),
    /// How it was seen last, for when the store is away.
    Before(Superblock),
}

/// Sizes and policies of a mount.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// The journal; its segment size comes from the superblock.
    pub journal: journal::Config,
    /// The maps.
    pub limits: Limits,
    /// Tree nodes in memory, bytes.
    pub node_cache_bytes: u64,
    /// File data and indexes in memory.
    pub cache: CacheBytes,
    /// Copies of store objects on local disk, if there are to be any.
    pub cache_files: Option<cache::Limits>,
    /// Checkpoints and shipping.
    pub policy: Policy,
    /// Changes that a mount from the store alone has in memory before it makes trees of them, bytes.
    pub fold_bytes: u64,
    /// Objects and nodes that a mount fetches at a time. With 1 it does so in order on its own thread.
    pub fetches: usize,
    /// The process that mounts.
    pub owner: Owner,
    /// How it deals with others who hold the filesystem.
    pub holding: Holding,
}

/// Told how far a long pass has come: (done, total), in bytes.
pub type ProgressFn<'a> = dyn FnMut(u64, u64) + 'a;

/// Everything a mount consists of. The step functions are driven by threads, or by the simulator.
pub struct Mounted {
    /// The filesystem.
    pub superblock: Superblock,
    /// The maps.
    pub db: Arc<Db>,
    /// Node segments.
    pub nodes: Arc<NodeStore>,
    /// Copies of store objects on local disk,
    pub cache: Option<Arc<Cache>>,
    /// and who writes and removes them.
    pub keeper: Option<Keeper>,
    /// To and from the shipper.
    pub desk: Arc<Desk>,
    /// The journal's writer.
    pub writer: Writer,
    /// The owner of checkpoints and of the space tree.
    pub checkpointer: Checkpointer,
    /// The shipper.
    pub shipper: Shipper,
    /// Who publishes what fsyncs wait for.
    pub syncer: Syncer,
    /// What replay took.
    pub replay: Replay,
    /// What was fetched to make local state, if there was none.
    pub taken_over: Option<Fetched>,
    /// What the store is told of who holds the filesystem.
    pub hold: Option<Hold>,
}

/// How long the pass `replay` took, and for what.
#[derive(Clone, Copy, Debug)]
pub struct Replay {
    /// Batches over the checkpoint.
    pub batches: u64,
    /// Bytes of journal read.
    pub bytes: u64,
    /// From the first byte read to the last batch applied.
    pub took: Duration,
}

/// Mounts: from local state if there is any, else by taking the store's newest generation over. Local state that somebody else has
/// taken the filesystem from is none when the store has all of it: whoever has let go may have it again.
pub fn mount(world: &World, tuning: &Tuning, progress: &mut ProgressFn<'_>) -> Result<Mounted, MountError> {
    match mount_once(world, tuning, progress) {
        Err(MountError::Outlived(e)) if tuning.holding == Holding::Untold => Err(MountError::Fenced(e)),
        Err(MountError::Outlived(e)) => {
            log::info!("{e}; the state directory holds nothing else and is made anew");
            // Before anything goes.
            hold::ask(&Asker::of(world, tuning), superblock(&*world.store)?.uuid)?;
            withdrawn::withdraw(&*world.media)?;
            mount_once(world, tuning, progress)
        }
        mounted => mounted,
    }
}

fn mount_once(world: &World, tuning: &Tuning, progress: &mut ProgressFn<'_>) -> Result<Mounted, MountError> {
    let (superblock, away) = configuration(world)?;
    // Before anything is made: what lies here is a repair's.
    if has_begun_repair(&*world.media)? && !canary::removed(Canary::MountHeedsRepair) {
        return Err(MountError::Unrepaired);
    }
    for dir in [NODES, files::CHECKPOINTS] {
        world.media.make_dir(dir)?;
    }
    canary::sync(Canary::StateFoldersSync, || world.media.sync_dir(""))?;
    withdrawn::clear(&*world.media)?;
    let manifest = ManifestStore::load(world.media.clone())?;
    // Before anything there is changed.
    if let Some(found) = manifest.as_ref().map(|manifest| manifest.current().uuid).filter(|f| *f != superblock.uuid) {
        return Err(MountError::ForeignState { found, expected: superblock.uuid });
    }
    let (files, keeper) = open_cache(world, tuning, superblock.uuid)?.unzip();
    // A store that has cache files is far away.
    let reader = files.clone().map(|files| Arc::new(SegmentReader::new(world.store.clone(), files)));
    let nodes = Arc::new(NodeStore::new(world.media.clone(), world.store.clone(), reader.clone()));
    nodes.remove_unfinished()?;
    nodes.expect_copies()?;
    let cache = Arc::new(NodeCache::new(tuning.node_cache_bytes));
    let fetcher = Fetcher::new(tuning.fetches);
    let (mut taken_over, mut before, begin) = (None, None, world.clock.elapsed());
    let manifest = match manifest {
        Some(manifest) => manifest,
        // Taking over would remove the segments, and with them the only copy of what was never shipped.
        None if withdrawn::has_journal(&*world.media)? => return Err(MountError::NoManifest),
        None if away.is_some() => return Err(not_local("the filesystem", away.unwrap_or_default())),
        None => {
            before = Some(hold::ask(&Asker::of(world, tuning), superblock.uuid)?);
            let (manifest, folds) = takeover::take_over(world, tuning, &superblock, &nodes, &cache, &fetcher)?;
            let Fetched { asked, rounds, .. } = *taken_over.insert(Fetched { folds, ..fetcher.figures() });
            let took = world.clock.elapsed().saturating_sub(begin).as_millis();
            log::debug!("taken over from the store alone in {took} ms: {asked} objects and nodes in {rounds} rounds");
            manifest
        }
    };
    let hold = Hold::new(world, tuning, &manifest.current(), before.is_some());
    let is_new = before.is_some();
    let lost = hold.as_ref().zip(before).and_then(|(hold, before)| {
        hold.take();
        before.end(&*world.store)
    });
    let offline = away.is_some();
    let opening = Opening {
        world,
        tuning,
        superblock,
        nodes,
        reader,
        cache,
        files,
        keeper,
        manifest,
        offline,
        fetcher,
        taken_over,
    };
    let mounted = opening.open(progress).map_err(|e| match (e, &hold) {
        (MountError::Fenced(ShipError::Fenced { by, .. }), Some(hold)) if is_new => overtaken(world, hold, by),
        (e, _) => e,
    })?;
    lost.iter().for_each(|lost| log::warn!("{lost}"));
    // A store that is away is told when it is back.
    if let Some(hold) = hold.as_ref().filter(|_| !mounted.checkpointer.figures().lock().offline) {
        hold.take();
    }
    Ok(Mounted { hold, ..mounted })
}

/// Won, and lost again before anything was done with it: nothing is worth a word but who has it now, and the state directory, which
/// holds what the store has, is as good as new.
fn overtaken(world: &World, hold: &Hold, by: String) -> MountError {
    hold.withdraw();
    if let Err(e) = withdrawn::withdraw(&*world.media) {
        log::warn!("the state directory stays: {e}");
    }
    HoldError::Overtaken { by }.into()
}

/// Takes up the cache files, if there are to be any.
pub(crate) fn open_cache(
    world: &World,
    tuning: &Tuning,
    filesystem: Uuid,
) -> Result<Option<(Arc<Cache>, Keeper)>, MountError> {
    let Some(limits) = tuning.cache_files else { return Ok(None) };
    let opened = Cache::open(world.cache_media.clone(), world.clock.clone(), filesystem, limits);
    opened.map(Some).map_err(MountError::Cache)
}

struct Opening<'a> {
    world: &'a World,
    tuning: &'a Tuning,
    superblock: Superblock,
    nodes: Arc<NodeStore>,
    reader: Option<Arc<SegmentReader>>,
    cache: Arc<NodeCache>,
    files: Option<Arc<Cache>>,
    keeper: Option<Keeper>,
    manifest: ManifestStore,
    /// The store is away.
    offline: bool,
    fetcher: Fetcher,
    taken_over: Option<Fetched>,
}

impl Opening<'_> {
    fn open(self, progress: &mut ProgressFn<'_>) -> Result<Mounted, MountError> {
        let Opening {
            world,
            tuning,
            superblock,
            nodes,
            reader,
            cache,
            files: cache_files,
            keeper,
            manifest,
            offline,
            fetcher,
            taken_over,
        } = self;
        let known = manifest.current();
        let number = known.checkpoint.ok_or_else(|| damaged("MANIFEST", "it names no checkpoint"))?.number;
        let checkpoint = files::read_checkpoint(&*world.media, number)?;
        let mut overlays: [Overlay; 2] = Default::default();
        let begin = world.clock.elapsed();
        let mut newest_own = checkpoint.lsn;
        let replayed = journal::replay(world.media.clone(), &known, checkpoint.lsn, progress, &mut |batch| {
            if batch.edits.iter().any(|(tree, _)| *tree == TreeId::Files) {
                newest_own = batch.lsn;
            }
            apply(&mut overlays, batch);
            Ok::<(), JournalError>(())
        })?;
        let took = world.clock.elapsed().saturating_sub(begin);
        let replay = Replay { batches: replayed.batches, bytes: replayed.bytes, took };
        let (last, lasts) = (replayed.last.max(checkpoint.lsn), replayed.lasts());
        let segment_bytes = u32::try_from(superblock.segment_size)
            .map_err(|_| damaged(SUPERBLOCK, "a journal segment size of 4 GiB or more"))?;
        let config = journal::Config { segment_bytes, ..tuning.journal };
        let (journal, mut writer) =
            journal::open(world.media.clone(), world.clock.clone(), world.random.clone(), manifest, replayed, config)?;
        let last = tail::import(&*world.media, &checkpoint, last, (&*journal, &mut writer), &mut |batch| {
            apply(&mut overlays, batch);
        })?;
        let state = Reader { cache: &cache, nodes: &nodes, fetcher: &fetcher };
        let space = View { overlay: &overlays[1], layers: &[], root: checkpoint.roots[1] };
        let published = state.value(&space, &space::published(), Published::decode);
        let published = published.map_err(|e| match offline {
            true => not_local("what it published", e),
            false => lost_to_another(&*world.store, &known).unwrap_or(e),
        })?;
        let identity = Identity {
            filesystem: superblock.uuid,
            state: known.state,
            nonce: this_mount(journal.manifest())?,
            epoch: known.epoch,
            owner: tuning.owner.describe(),
        };
        let next = next_position(&known, published);
        let past = Past::new(world.media.clone(), &known, published).holding(lasts);
        let publisher = Publisher::new(world.store.clone(), identity, next, past).asking(tuning.fetches);
        let publisher = Arc::new(publisher);
        let in_store = published.is_some_and(|published| newest_own <= published.end) && known.plans.is_empty();
        let resumed = if offline { Ok(None) } else { resume(&publisher) };
        let mut adopted = resumed.map_err(|e| match e {
            MountError::Fenced(e) if in_store && taken_over.is_none() => MountError::Outlived(e),
            e => e,
        })?;
        let files = View { overlay: &overlays[0], layers: &[], root: checkpoint.roots[0] };
        // After the fence: who took over may have deleted a node that lies in the store alone, and that it did is what to say.
        let mut needed = state.needed(&files, &space);
        if let (Err(e), None) = (&needed, &adopted) {
            adopted = resume_late(&publisher)?;
            let refused = Err(not_local("all that a mount needs", e));
            needed = if adopted.is_some() { state.needed(&files, &space) } else { refused };
        }
        let Needed { usage, usage_limit, inode_mark, windows } = needed?;
        // Who gave the superblock that it began with knows already.
        if adopted.is_none() && !offline {
            log::warn!("the store does not answer any more: mounted from the state directory alone");
        }
        let locate = Arc::new(Locate::new(Some(journal.clone()), world.store.clone(), tuning.cache, reader));
        for (end, start) in windows {
            locate.windows().add(start, end);
        }
        for entry in checkpoint.windows.iter().filter(|entry| entry.objects > 0) {
            locate.windows().add(entry.start, entry.end);
        }
        let start = Start { roots: checkpoint.roots, overlays, last, inode_mark, usage, usage_limit };
        let db = Arc::new(Db::new(known.epoch, start, journal, locate.clone(), cache, tuning.limits));
        let desk = Arc::new(Desk::default());
        let parts = checkpoint::Parts {
            filesystem: superblock.uuid,
            db: db.clone(),
            media: world.media.clone(),
            clock: world.clock.clone(),
            nodes: nodes.clone(),
            desk: desk.clone(),
            policy: tuning.policy,
        };
        let checkpointer = Checkpointer::new(parts, checkpoint, adopted);
        let syncer = Syncer::new(ship::syncer::Parts {
            filesystem: superblock.uuid,
            journal: db.journal().clone(),
            publisher: publisher.clone(),
            clock: world.clock.clone(),
            asking: checkpointer.asking(),
        });
        let parts = ship::Parts {
            filesystem: superblock.uuid,
            media: world.media.clone(),
            store: world.store.clone(),
            clock: world.clock.clone(),
            random: world.random.clone(),
            nodes: nodes.clone(),
            locate,
            stored: syncer.stored(),
            owner: tuning.owner.clone(),
            epoch: known.epoch,
            segment_bytes: tuning.policy.segment_bytes,
            uploads: tuning.policy.uploads,
        };
        let shipper = Shipper::new(parts, publisher);
        let (cache, hold) = (cache_files, None);
        Ok(Mounted {
            superblock,
            db,
            nodes,
            cache,
            keeper,
            desk,
            writer,
            checkpointer,
            shipper,
            syncer,
            replay,
            taken_over,
            hold,
        })
    }
}

/// Why a node is gone that a state directory needs, if it is because another writer has the filesystem and deletes what it does not
/// need. Nothing if the newest publication does not say that, or cannot be read.
fn lost_to_another(store: &dyn Store, known: &Manifest) -> Option<MountError> {
    let newest = numbers::newest_publication(store).ok()?;
    let newest = ship::publish::read(store, newest).ok()??;
    (newest.epoch > known.epoch && newest.state != known.state).then(|| ship::publish::fenced_by(&newest).into())
}

/// What earlier lives published; nothing if the store is away, for it can be asked later.
fn resume(publisher: &Publisher) -> Result<Option<Vec<Publication>>, MountError> {
    match publisher.resume() {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.is_away() => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// The same, when what answers may be another store by now.
fn resume_late(publisher: &Publisher) -> Result<Option<Vec<Publication>>, MountError> {
    match publisher.confirm_store() {
        Ok(()) => resume(publisher),
        Err(e) if e.is_away() => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Where this state directory publishes next: behind what it recorded, or at the start of the generation it won.
pub fn next_position(manifest: &Manifest, published: Option<Published>) -> Position {
    match published {
        Some(p) if p.generation >= manifest.generation => Position { generation: p.generation, number: p.number + 1 },
        _ => Position { generation: manifest.generation, number: 0 },
    }
}

/// The journal's newest segment carries this mount's nonce.
fn this_mount(manifest: &ManifestStore) -> Result<Nonce, MountError> {
    let newest = manifest.current().journal.last().map(|entry| entry.nonce);
    newest.ok_or_else(|| damaged("MANIFEST", "it names no journal segment"))
}

pub(crate) fn damaged(place: &str, reason: impl ToString) -> MountError {
    MountError::Damaged { place: place.to_owned(), reason: reason.to_string() }
}

/// A batch of the log over the overlays, whole.
pub(crate) fn apply(overlays: &mut [Overlay; 2], batch: Batch) {
    let headers = batch.headers();
    for (tree, edit) in batch.edits {
        overlays[tree as usize].apply(batch.lsn, &edit.resolve(batch.lsn, &headers));
    }
}

/// The maps' keys that recovery writes itself.
pub(crate) fn put_mark(overlays: &mut [Overlay; 2], lsn: Lsn, which: Mark, value: u64) {
    let edit = crate::format::batch::Edit::Put { key: space::mark(which), value: space::encode_number(value) };
    overlays[TreeId::Space as usize].apply(lsn, &edit);
}
