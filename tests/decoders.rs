//! No decoder panics, whatever the bytes: random ones, and kept ones with flips, cuts and pieces of others. The bodies are
//! those of the fuzz targets in `fuzz/`.

#[path = "../fuzz/bodies.rs"]
mod bodies;
mod samples;

use proptest::prelude::*;
use proptest::sample::Index;

/// Changes to a sample: bytes replaced, a piece of another sample pasted over it, a cut.
#[derive(Clone, Debug)]
struct Damage {
    replaced: Vec<(Index, u8)>,
    pasted: Option<(Index, Index, Index, u8)>,
    cut: Option<Index>,
}

fn any_damage() -> impl Strategy<Value = Damage> {
    let replaced = proptest::collection::vec((any::<Index>(), byte()), 0..4);
    let pasted = proptest::option::weighted(0.3, any::<(Index, Index, Index, u8)>());
    let cut = proptest::option::weighted(0.2, any::<Index>());
    (replaced, pasted, cut).prop_map(|(replaced, pasted, cut)| Damage { replaced, pasted, cut })
}

/// Ends of ranges and digits more often than others.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![any::<u8>(), Just(0), Just(1), Just(0x7f), Just(0x80), Just(0xff), b'0'..=b'9']
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>, samples: &[Vec<u8>]) {
        if let Some((sample, from, to, len)) = self.pasted {
            let piece = &samples[sample.index(samples.len())];
            let piece = &piece[from.index(piece.len())..];
            let piece = &piece[..piece.len().min(usize::from(len))];
            let to = to.index(bytes.len());
            let end = bytes.len().min(to + piece.len());
            bytes[to..end].copy_from_slice(&piece[..end - to]);
        }
        for (at, byte) in &self.replaced {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        if let Some(cut) = self.cut {
            bytes.truncate(cut.index(bytes.len()));
        }
    }
}

fn run_all(bytes: &[u8]) {
    for (_, body) in bodies::ALL {
        body(bytes);
    }
}

/// What the targets start from: the samples, and what does not start with its footer there.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = samples::all().into_iter().map(|sample| sample.bytes).collect();
    let directory = samples::all().into_iter().find(|sample| sample.file == "journal_directory.bin").expect("a sample");
    let (blocks, footer) = directory.bytes.split_at(directory.bytes.len() / 2);
    seeds.push([footer, blocks].concat());
    seeds
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_decoder_panics_on_damaged_samples(which: Index, damage in any_damage()) {
        let samples = seeds();
        let mut bytes = samples[which.index(samples.len())].clone();
        damage.apply(&mut bytes, &samples);
        run_all(&bytes);
    }

    #[test]
    fn no_decoder_panics_on_random_bytes(bytes in proptest::collection::vec(byte(), 0..300)) {
        run_all(&bytes);
    }
}

#[test]
fn every_sample_decodes_also_with_its_checksum_broken() {
    for sample in samples::all() {
        (sample.check)(&sample.bytes);
    }
    // Bytes 4 to 7 are the checksum of what starts with a magic. Text has it in the last line.
    let broken = |bytes: &[u8]| {
        let mut broken = bytes.to_vec();
        let text_crc = bytes.windows(3).rposition(|window| window == b"crc").unwrap_or(0);
        let at = if bytes.starts_with(b"SK") { 4 } else { text_crc + 9 };
        broken[at] = if broken[at] == b'0' { b'1' } else { b'0' };
        broken
    };
    for (name, body) in bodies::ALL.iter().filter(|(name, _)| !matches!(*name, "keys_and_values" | "node")) {
        let undamaged: usize = seeds().iter().map(|bytes| body(bytes)).max().unwrap_or(0);
        assert!(undamaged > 0, "{name} decodes no sample");
        let behind: usize = seeds().iter().map(|bytes| body(&broken(bytes))).max().unwrap_or(0);
        assert!(behind > 0, "{name} is stopped by the checksum");
    }
    assert!(seeds().iter().any(|bytes| bodies::node(bytes) > 0), "no node decodes");
}

#[test]
fn every_body_has_a_fuzz_target() {
    for (name, _) in bodies::ALL {
        let target = format!("{}/fuzz/fuzz_targets/{name}.rs", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&target).unwrap_or_else(|e| panic!("{target}: {e}"));
        assert!(text.contains(&format!("bodies::{name}(data)")), "{target}");
    }
}
