//! The manifest is strict: each fault names its line and its reason.

use super::*;
use crate::format::faults::assert_damage_is_found;

fn sample() -> Manifest {
    let lsn = |pos| Lsn { epoch: 2, pos };
    let (nonce, size) = (Nonce(0xfeed), 65536);
    let end = RecordedEnd { offset: 12288, last: lsn(40), sequence: 9 };
    Manifest {
        uuid: Uuid(0x1234),
        state: Uuid(0x5678),
        epoch: 2,
        generation: 3,
        next_checkpoint: 8,
        checkpoint: Some(CommitPoint { number: 7, lsn: lsn(30) }),
        plans: vec![
            PlanEntry { number: 6, start: lsn(10), end: lsn(20), edits: None },
            PlanEntry { number: 7, start: lsn(20), end: lsn(30), edits: Some(0) },
        ],
        journal: vec![
            JournalEntry { number: JournalNo(11), slot: 2, size, nonce, end: Some(end) },
            JournalEntry { number: JournalNo(12), slot: 0, size, nonce, end: None },
        ],
        free: vec![FreeSlot { slot: 1, size }],
        history: vec!["nodes/1-4".into()],
    }
}

/// Writes the checksum line that belongs to these lines.
fn sealed(lines: &str) -> Vec<u8> {
    format!("{lines}crc={:08x}\n", crc32c::crc32c(lines.as_bytes())).into_bytes()
}

fn body() -> String {
    let text = sample().encode();
    text[..text.rfind("crc=").expect("a checksum line")].to_owned()
}

#[test]
fn manifests_survive_the_trip() {
    assert_eq!(Manifest::decode(sample().encode().as_bytes()), Ok(sample()));
    let empty = (None, vec![], vec![], vec![], vec![]);
    let (checkpoint, plans, journal, free, history) = empty;
    let empty = Manifest { checkpoint, plans, journal, free, history, ..sample() };
    assert_eq!(Manifest::decode(empty.encode().as_bytes()), Ok(empty));
}

#[test]
fn promise_r1_every_flipped_bit_and_every_cut_is_found() {
    assert_damage_is_found(sample().encode().as_bytes(), Manifest::decode);
}

#[test]
fn promise_r1_an_unknown_key_in_a_known_line_is_ignored() {
    let text = body().replace("slot=1 ", "slot=1 colour=blue ").replace("epoch=2\n", "epoch=2 note=x\n");
    assert_eq!(Manifest::decode(&sealed(&text)), Ok(sample()));
}

/// The line and the reason with which a changed manifest is refused.
fn refusal(from: &str, to: &str) -> (usize, String) {
    let text = body();
    assert!(text.contains(from), "{from:?} is in the sample");
    match Manifest::decode(&sealed(&text.replacen(from, to, 1))) {
        Err(FormatError::Line { line, reason }) => (line, reason),
        other => panic!("{to:?} gives {other:?}"),
    }
}

#[test]
fn promise_r1_a_fault_is_fatal_and_names_its_line_and_reason() {
    let cases = [
        ("skylog-manifest 1", "skylog-manifest 01", 1, "not the first line"),
        ("skylog-manifest 1", "something else", 1, "not the first line"),
        ("epoch=2\n", "epoch=2\nepoch=2\n", 5, "a second line epoch"),
        ("epoch=2\n", "epoch=two\n", 4, "epoch=two cannot be read"),
        ("epoch=2\n", "epoch=+2\n", 4, "epoch=+2 cannot be read"),
        ("epoch=2\n", "epoch\n", 4, "key epoch is missing"),
        ("epoch=2\n", "epoch=99999999999\n", 4, "cannot be read"),
        ("epoch=2\n", "epoch=2 stray\n", 4, "\"stray\" is not key=value"),
        ("epoch=2\n", "epoch=2 \n", 4, "\"\" is not key=value"),
        ("epoch=2\n", "\n", 4, "an empty line"),
        ("epoch=2\n", "", 13, "there is no line epoch="),
        ("uuid=0", "uuid=zz", 2, "cannot be read"),
        ("generation=3\n", "generation=3\nsurprise a=1\n", 6, "unknown line type \"surprise\""),
        ("next_checkpoint=8", "next_checkpoint=7", 14, "next_checkpoint is a number that is in use"),
        ("checkpoint number=7 lsn=2.30\n", "checkpoint number=7\n", 7, "key lsn is missing"),
        ("plan number=7", "plan number=6", 9, "plan 6 follows plan 6"),
        ("start=2.20 end=2.30", "start=2.30 end=2.20", 9, "ends before it starts"),
        ("journal number=12", "journal number=11", 11, "journal 11 follows journal 11"),
        ("journal number=12", "journal number=10", 11, "journal 10 follows journal 11"),
        ("slot=0", "slot=2", 11, "slot 2 is there twice"),
        ("slot=1", "slot=0", 12, "slot 0 is there twice"),
        ("slot=2", "slot=2 slot=2", 10, "key slot is there twice"),
        ("end=12288", "end=65537", 10, "the end is beyond the size"),
        (" sequence=9", "", 10, "key sequence is missing"),
        ("history file=nodes/1-4\n", "history file=../x\n", 13, "not a file of the state directory"),
        ("file=nodes/1-4\n", "file=nodes/1-4\nhistory file=nodes/1-4\n", 14, "file nodes/1-4 is there twice"),
    ];
    for (from, to, line, reason) in cases {
        let (found_line, found_reason) = refusal(from, to);
        assert_eq!(found_line, line, "{to:?}: {found_reason}");
        assert!(found_reason.contains(reason), "{to:?}: {found_reason}");
    }
}

#[test]
fn promise_r1_faults_of_the_whole_file_are_told_apart() {
    let reason = |bytes: &[u8]| match Manifest::decode(bytes) {
        Err(FormatError::Line { line, reason }) => format!("{line}: {reason}"),
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(b""), "1: the manifest is empty");
    assert_eq!(reason(b"skylog-manifest 1\nuuid=\xff\n"), "2: not text");
    assert_eq!(reason(b"skylog-manifest 1"), "1: the last line is cut short");
    assert!(reason(body().as_bytes()).contains("the checksum is missing"));
    let after = [&sample().encode().into_bytes()[..], b"epoch=2\n"].concat();
    assert_eq!(reason(&after), "15: a line after the checksum");
    let stale = sample().encode().replace("epoch=2", "epoch=3");
    assert!(reason(stale.as_bytes()).contains("checksum mismatch"));
    let newer = body().replace("manifest 1", "manifest 2");
    assert_eq!(Manifest::decode(newer.as_bytes()), Err(FormatError::Version { supported: 1, found: 2 }));
}

#[test]
#[should_panic(expected = "read back as it was")]
fn a_manifest_that_could_not_be_read_back_is_never_written() {
    Manifest { history: vec!["a name with spaces".into()], ..sample() }.encode();
}

#[test]
fn a_manifest_of_very_many_entries_is_read_back() {
    // Were each compared with all before it, that would be billions of comparisons.
    const MANY: u32 = 50_000;
    let mut manifest = sample();
    manifest.free = (100..100 + MANY).map(|slot| FreeSlot { slot, size: 65536 }).collect();
    manifest.history = (0..MANY).map(|number| format!("nodes/9-{number}")).collect();
    let text = manifest.encode();
    let keys: String = (0..MANY).map(|number| format!(" colour{number}=blue")).collect();
    let (lines, _) = text.split_at(text.rfind("crc=").expect("a checksum line"));
    let unknown = sealed(&lines.replacen("slot=100 ", &format!("slot=100{keys} "), 1));
    assert_eq!(Manifest::decode(&unknown), Ok(manifest));

    let refused = |line: &str| match Manifest::decode(&sealed(&format!("{lines}{line}\n"))) {
        Err(FormatError::Line { reason, .. }) => reason,
        other => panic!("{line} gives {other:?}"),
    };
    assert_eq!(refused("free slot=100 size=65536"), "slot 100 is there twice");
    assert_eq!(refused("history file=nodes/9-0"), "file nodes/9-0 is there twice");
}
