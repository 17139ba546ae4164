//! Random puts, reads, removals, failures and limits against a simple model: no wrong byte, never above the limit, and of a
//! class the least recently used goes first.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Put { number: u64, class: Class, start: u64, len: u64 },
    Read { number: u64, range: Range<u64> },
    Remove { number: u64, range: Range<u64> },
    Settle,
    One,
    Fail(DiskOp, DiskFault),
    Wait,
    Again(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let range = (0..60_000_u64, 1..20_000_u64).prop_map(|(start, len)| start..start + len);
    let class = prop_oneof![Just(Class::Data), Just(Class::Nodes), Just(Class::Indexes)];
    let op = prop_oneof![Just(DiskOp::Read), Just(DiskOp::Write), Just(DiskOp::Create), Just(DiskOp::Remove)];
    let fault = prop_oneof![Just(DiskFault::Failed), Just(DiskFault::NoSpace), Just(DiskFault::Short)];
    prop_oneof![
        6 => (0..4_u64, class, 0..60_000_u64, 1..20_000_u64)
            .prop_map(|(number, class, start, len)| Step::Put { number, class, start, len }),
        6 => (0..4_u64, range.clone()).prop_map(|(number, range)| Step::Read { number, range }),
        1 => (0..4_u64, range).prop_map(|(number, range)| Step::Remove { number, range }),
        4 => Just(Step::Settle),
        4 => Just(Step::One),
        1 => (op, fault).prop_map(|(op, fault)| Step::Fail(op, fault)),
        1 => Just(Step::Wait),
        1 => (30..300_u64).prop_map(|kib| Step::Again(kib * KIB)),
    ]
}

/// All that can be known from outside: every byte that was put and not removed may be there.
#[derive(Default)]
struct Model {
    put: Vec<(u64, Range<u64>)>,
    /// What was removed and whose file the keeper may not have removed yet: after another mount that is there again.
    removed: Vec<(u64, Range<u64>)>,
}

impl Model {
    fn may_hold(&self, number: u64, range: &Range<u64>) -> bool {
        range.clone().all(|at| self.put.iter().any(|(of, run)| *of == number && run.contains(&at)))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn promise_s8_no_wrong_byte_and_never_above_the_limit(
        steps in proptest::collection::vec(step(), 1..60),
        limit in 30..300_u64,
    ) {
        let mut rig = Rig::new(limit * KIB);
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Put { number, class, start, len } => {
                    rig.cache.put(segment(number), class, start, bytes(segment(number), start..start + len));
                    model.put.push((number, start..start + len));
                }
                Step::Read { number, range } => {
                    let held = rig.cache.holds(segment(number), range.clone());
                    match rig.cache.read(segment(number), range.clone()) {
                        Some(read) => {
                            prop_assert!(held && model.may_hold(number, &range));
                            prop_assert_eq!(read, bytes(segment(number), range));
                        }
                        None => prop_assert!(!held || rig.disk.failed() > 0, "what is held can be read"),
                    }
                }
                Step::Remove { number, range } => {
                    rig.cache.remove(segment(number), range.clone());
                    let mut at = range.clone();
                    prop_assert!(!at.any(|at| rig.cache.holds(segment(number), at..at + 1)));
                    let stays = |(of, run): &(u64, Range<u64>)| {
                        *of != number || run.end <= range.start || range.end <= run.start
                    };
                    model.removed.extend(model.put.extract_if(.., |put| !stays(put)));
                }
                Step::Settle => {
                    rig.settle();
                    if rig.disk.failed() == 0 {
                        model.removed.clear();
                    }
                }
                Step::One => drop(rig.keeper.step()),
                Step::Fail(op, fault) => rig.disk.fail(Nth::new(1).of(op).on(CACHE), fault),
                Step::Wait => rig.clock.advance(Duration::from_secs(1)),
                Step::Again(bytes_max) => {
                    rig.disk.heal();
                    rig = rig.again(Limits { bytes_max, free_bytes_min: 0 });
                    model.put.append(&mut model.removed);
                }
            }
            let stats = rig.cache.stats();
            prop_assert!(stats.used_bytes <= stats.limit_bytes && rig.on_disk() <= stats.used_bytes);
            rig.cache.state.lock().check();
        }
        rig.disk.heal();
        rig.clock.advance(Duration::from_secs(2));
        rig.settle();
        let stats = rig.cache.stats();
        prop_assert_eq!((rig.files().len() as u64, stats.pending_bytes), (stats.runs, 0), "a file for each run");
    }

    #[test]
    fn promise_s8_of_a_class_the_least_recently_used_goes_first(
        steps in proptest::collection::vec((0..30_u64, any::<bool>()), 1..120),
    ) {
        let weight = 4 * KIB + 128;
        let mut rig = Rig::new(8 * weight);
        // Oldest first: data has odd numbers, nodes even ones.
        let mut model: [Vec<u64>; 2] = Default::default();
        for (number, read) in steps {
            let of = &mut model[(number % 2) as usize];
            let held = of.contains(&number);
            prop_assert_eq!(rig.cache.holds(segment(number), 0..4096), held, "segment {}", number);
            if read {
                rig.cache.read(segment(number), 0..4096);
            } else {
                let class = if number % 2 == 0 { Class::Nodes } else { Class::Data };
                rig.cache.put(segment(number), class, 0, bytes(segment(number), 0..4096));
            }
            if held || !read {
                of.retain(|other| *other != number);
                of.push(number);
            }
            rig.settle();
            if !read && !held {
                let [nodes, data] = &mut model;
                let over = nodes.len() + data.len() > 8;
                match over {
                    true if nodes.len() > 4 || data.len() == usize::from(number % 2 == 1) => drop(nodes.remove(0)),
                    true => drop(data.remove(0)),
                    false => {}
                }
            }
        }
    }
}

/// Found by the random steps above.
#[test]
fn what_was_removed_a_moment_before_the_end_may_be_there_again_and_is_right() {
    let mut rig = Rig::new(30 * KIB);
    let (two, run) = (segment(2), 29_918..49_297);
    rig.cache.put(two, Class::Data, run.start, bytes(two, run.clone()));
    rig.settle();
    rig.cache.remove(two, 25_689..29_919);
    assert!(!rig.cache.holds(two, run.clone()));
    rig = rig.again(Limits { bytes_max: 30 * KIB, free_bytes_min: 0 });
    assert_eq!(rig.cache.read(two, run.clone()), Some(bytes(two, run.clone())));
    rig.cache.remove(two, run.clone());
    rig.settle();
    rig = rig.again(Limits { bytes_max: 30 * KIB, free_bytes_min: 0 });
    assert_eq!(rig.cache.read(two, run), None);
}
