//! Following goes on over a repair, into the generation that it made.

use super::*;
use crate::repair::{Means, repair};

/// Damages the first chunk that holds these bytes.
fn damage(rig: &Rig, bytes: &[u8]) {
    for name in rig.world.store.list("seg").expect("listed") {
        let mut segment = rig.world.store.get(&name).expect("there").to_vec();
        if let Some(at) = segment.windows(bytes.len()).position(|window| window == bytes) {
            segment[at] ^= 1;
            return rig.world.store.put(&name, segment.into()).expect("put");
        }
    }
    panic!("nobody has these bytes");
}

#[test]
fn a_follower_goes_on_in_the_generation_of_a_repair() {
    let mut rig = Rig::new(93, &small());
    put(&mut rig, "whole", &[1; 8000]);
    rig.drain();
    put(&mut rig, "hit", &[2; 8000]);
    rig.drain();
    let mut reader = Reader::open(&rig, 94, &small()).expect("opened");
    let before = reader.seen();
    damage(&rig, &[2; 3000]);
    let tuning = small();
    let means = Means {
        store: rig.world.store.clone(),
        state: None,
        clock: rig.clock.clone(),
        random: Arc::new(SeededRandom::new(95)),
        owner: tuning.owner,
        holding: tuning.holding,
        not_append_only: false,
        segment_bytes: tuning.policy.segment_bytes,
        shape: tuning.policy.shape,
    };
    let report = repair(&means, false, &mut |_, _, _| {}).expect("repaired");
    assert!(report.after.is_some_and(|after| after.is_clean()));
    rig.advance(POLL);
    reader.step();
    let now = reader.seen();
    assert!(now.position > before.position && Some(now.position) >= report.base, "{:?}", now.position);
    let find = |name: &[u8]| {
        let found = reader.run(None, |fs, cx| fs.lookup(cx, InodeNo::ROOT, name));
        found.expect("looked up").expect("found").ino
    };
    let (whole, hit) = (find(b"whole"), find(b"hit"));
    assert_eq!(reader.run(None, |fs, cx| fs.read(cx, whole, 0, 8000)), Ok(vec![1; 8000]));
    assert_eq!(reader.run(None, |fs, cx| fs.read(cx, hit, 0, 100)), Err(Error::Io));
}
