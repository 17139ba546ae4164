//! Fuzz targets whose bytes choose operations, entries or damage instead of being decoded.

#[path = "cached.rs"]
mod cached;
#[path = "../tests/hostile/chance.rs"]
mod chance;
#[expect(dead_code, reason = "only tests make trees that go round")]
#[path = "../tests/hostile/forge.rs"]
mod forge;
#[expect(dead_code, reason = "its ear is for tests that ask whether an error names the object")]
#[path = "../tests/damage/heard.rs"]
mod heard;
#[path = "../tests/hostile/life.rs"]
mod life;
#[path = "../tests/model/mod.rs"]
mod model;
#[expect(dead_code, reason = "here there is a store alone, and nothing goes on")]
#[path = "../tests/damage/views.rs"]
mod views;

pub use cached::cache_files;
use forge::Forge;
use model::driver::{Driver, Mount};
use model::generate::Generator;
use model::op::Who;
use model::{Model, time_of};
use skylog::base::clock::{Clock, SimClock, Time};
use skylog::base::random::{Random, SeededRandom};
use skylog::fs::{Cx, Fs, Stop};
use skylog::media::sim::{CallLog, SimDisk};
use skylog::recovery::{MkfsOptions, MountError, mkfs};
use skylog::rig::{Rig, small};
use skylog::store::Store;
use skylog::store::sim::SimStore;
use std::sync::Arc;
use views::{Machine, Tree};

/// Takes any bytes; returns whether it got somewhere.
type Body = fn(&[u8]) -> usize;

/// All of them by name.
pub const ALL: [(&str, Body); 4] =
    [("core", core), ("image", image), ("damaged", damaged), ("cache_files", cache_files)];

/// Operations of a history at most.
const OPS_MAX: usize = 60;

struct Core(Rig);

impl Mount for Core {
    fn run<T>(&mut self, who: Who, now: Time, mut op: impl FnMut(&Fs, &Cx) -> Result<T, Stop>) -> Result<T, i32> {
        let result = self.0.run(|fs, cx| {
            (cx.uid, cx.gid, cx.now, cx.caller) = (who.uid, who.gid, now, who.caller());
            op(fs, cx)
        });
        result.map_err(|error| error.errno())
    }
}

/// Segments that take the longest write of the model's whole.
fn roomy() -> Rig {
    const SEGMENT_BYTES: u32 = 2 << 20;
    let (log, clock) = (CallLog::new(), Arc::new(SimClock::default()));
    let (store, disk) = (SimStore::new(&log), SimDisk::new(&log));
    let options = MkfsOptions { segment_size: SEGMENT_BYTES, ..MkfsOptions::default() };
    mkfs(&store, &*clock, &SeededRandom::new(1), options).expect("made");
    let mut tuning = small();
    tuning.journal.segment_bytes = SEGMENT_BYTES;
    tuning.journal.journal_bytes = 8 * u64::from(SEGMENT_BYTES);
    tuning.journal.reserve_bytes = SEGMENT_BYTES.into();
    tuning.journal.queue_bytes_max = 4 << 20;
    Rig::mount(log, disk, store, clock, 1, &tuning).expect("mounted")
}

/// A history on the filesystem core and on the model.
pub fn core(data: &[u8]) -> usize {
    let random = SeededRandom::fed(data);
    let mut generator = Generator::new(&random);
    let (mut model, mut driver) = (Model::new(SimClock::default().now().as_nanos()), Driver::default());
    let mut core = Core(roomy());
    for _ in 0..data.len().min(OPS_MAX) {
        let op = generator.op();
        let expected = model.apply(&op);
        assert_eq!(driver.apply(&mut core, time_of(model.step()), &op), expected, "{op:?}");
        if data.first().is_some_and(|byte| byte % 4 == 0) {
            core.0.step();
        }
    }
    assert_eq!(driver.tree(&mut core), Ok(model.tree()));
    1
}

fn honest() -> Forge {
    thread_local! {
        static HONEST: Forge = Forge::of(&life::honest_store());
    }
    HONEST.with(Forge::clone)
}

/// A store with other entries and right checksums.
pub fn image(data: &[u8]) -> usize {
    let lived = life::live(&chance::forge(honest(), &SeededRandom::fed(data)).store());
    usize::from(lived.read > 0)
}

/// A store with flipped bits, objects that are cut, gone, or in each other's place: what is read of it is what was there, or an
/// error.
pub fn damaged(data: &[u8]) -> usize {
    let (random, store) = (SeededRandom::fed(data), honest().store());
    for _ in 0..=random.below(4) {
        damage(&store, &random);
    }
    let mut seen = 0;
    for (who, see) in READERS {
        // A mount writes to the store that it is given.
        let Ok(tree) = see(&machine(&SimStore::from_image(&store.image(), &CallLog::new()))) else { continue };
        assert_eq!(never_there(&tree), None, "{who} reads what was never there");
        seen += 1;
    }
    seen + usize::from(life::live(&store).read > 0)
}

/// What is wrong with a tree, if it is none that the honest store ever had.
fn never_there(tree: &Tree) -> Option<String> {
    let was = trees();
    let mut wrong: Vec<String> = was.iter().map_while(|was| views::difference(was, tree)).collect();
    (wrong.len() == was.len()).then(|| wrong.swap_remove(0))
}

#[test]
fn a_wrong_byte_is_seen_and_an_error_is_none() {
    let mut tree = trees()[0].clone();
    assert_eq!(never_there(&tree), None);
    let file = tree.get_mut("/dir/file 2").expect("a file");
    file.as_mut().expect("whole").contents[2000] ^= 1;
    assert!(never_there(&tree).is_some_and(|what| what.starts_with("/dir/file 2")));
    tree.insert("/dir/file 2".to_owned(), Err("it is damaged".to_owned()));
    assert_eq!(never_there(&tree), None);
    tree.remove("/dir/file 3");
    assert_eq!(never_there(&tree), Some("/dir/file 3 is missing".to_owned()));
}

/// Who reads a store, nobody having another copy.
const READERS: [(&str, Reader); 2] = [("a mount", views::elsewhere), ("a follower", views::follow)];

type Reader = fn(&Machine) -> Result<Tree, MountError>;

fn machine(store: &SimStore) -> Machine {
    Machine { disk: SimDisk::new(&CallLog::new()), store: store.clone(), tuning: small() }
}

/// What there is in the honest store, and what there was before its newest publications: nobody can tell that those are gone.
fn trees() -> Arc<Vec<Tree>> {
    thread_local! {
        static TREES: Arc<Vec<Tree>> = Arc::new(all_trees());
    }
    TREES.with(Arc::clone)
}

fn all_trees() -> Vec<Tree> {
    let store = honest().store();
    let names = store.list("gen/").expect("listed");
    let mut trees = Vec::new();
    for newest in names.iter().rev() {
        let copy = SimStore::from_image(&store.image(), &CallLog::new());
        trees.extend(views::elsewhere(&machine(&copy)).ok());
        store.delete(newest).expect("deleted");
    }
    let all_read = |tree: &Tree| tree.values().all(Result::is_ok);
    assert!(all_read(&trees[0]) && trees[0].len() > 12, "the honest store cannot be read");
    trees
}

fn damage(store: &SimStore, random: &SeededRandom) {
    let names = store.list("").expect("listed");
    let any = || &names[(random.u64() % names.len() as u64) as usize];
    let (name, other) = (any(), any());
    let mut bytes = store.get(name).expect("listed").to_vec();
    let at = ((random.u64() << 8 | random.u64()) % bytes.len() as u64) as usize;
    match random.below(4) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes.truncate(at),
        2 => bytes = store.get(other).expect("listed").to_vec(),
        _ => return store.delete(name).expect("deleted"),
    }
    store.put(name, bytes.into()).expect("put");
}
