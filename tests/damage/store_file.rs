//! The file `store` of a remote store's state directory, which the commands read before anything is mounted.

use crate::kinds::Kind;
use crate::sweep::{Damage, Scope};
use crate::tally::{Counts, Tally};
use skylog::base::clock::SimClock;
use skylog::base::random::SeededRandom;
use skylog::format::store_file::{STORE_FILE, StoreFile};
use skylog::media::sim::CallLog;
use skylog::recovery::superblock;
use skylog::rig::new_store;

/// Damages it everywhere: what is read is what was written, or an error.
pub fn sweep(scope: &Scope) -> Tally {
    let store = new_store(&CallLog::new(), &SimClock::default(), &SeededRandom::new(1)).expect("made");
    let file = StoreFile {
        url: "s3://bucket/prefix".to_owned(),
        endpoint: Some("https://minio.example:9000".to_owned()),
        superblock: superblock(&store).expect("read"),
    };
    let (bytes, mut tally, mut counts) = (file.encode(), Tally::default(), Counts::default());
    if scope.only.as_ref().is_some_and(|only| !STORE_FILE.contains(only)) {
        return tally;
    }
    for damage in Damage::all(bytes.len() as u64, scope) {
        counts.trials += 1;
        match StoreFile::decode(&damage.apply(&bytes)) {
            Err(_) => counts.named += 1,
            Ok(found) if found == file => {
                counts.right += 1;
                tally.failure(
                    Kind::StoreFile,
                    "is seen by nobody",
                    format!("{STORE_FILE}: {damage:?} is seen by nobody"),
                );
            }
            Ok(found) => {
                tally.failure(Kind::StoreFile, "is misread", format!("{STORE_FILE}: {damage:?} gives {found:?}"))
            }
        }
    }
    tally.kinds.insert(Kind::StoreFile, counts);
    tally
}
