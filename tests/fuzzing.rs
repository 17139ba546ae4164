//! The bodies of all fuzz targets, for whoever has no fuzzer: fed with samples that are changed by chance, a number of times, or with
//! `SKYLOG_FUZZ_SECONDS=n` each for so long. Prints executions per target. `scripts/fuzz` calls it.

#[path = "../fuzz/bodies.rs"]
mod bodies;
#[path = "../fuzz/mutate.rs"]
mod mutate;
mod samples;
#[path = "../fuzz/structured.rs"]
mod structured;

use mutate::run;
use skylog::base::random::{Random, SeededRandom};

/// Executions of a target that decodes, and of one that runs a filesystem, unless told otherwise.
const DECODED: u64 = 2000;
const LIVED: u64 = 12;

#[test]
fn no_target_panics_on_what_a_fuzzer_would_try() {
    samples::all().iter().for_each(|sample| (sample.check)(&sample.bytes));
    let mut samples: Vec<Vec<u8>> = samples::all().into_iter().map(|sample| sample.bytes).collect();
    // Its target begins with the footer.
    let directory = samples::all().into_iter().find(|sample| sample.file == "journal_directory.bin").expect("a sample");
    let (blocks, footer) = directory.bytes.split_at(directory.bytes.len() / 2);
    samples.push([footer, blocks].concat());
    for (name, body) in bodies::ALL {
        let (executions, _) = run(name, body, &samples, DECODED);
        assert!(executions > 0, "{name} did not run");
    }
    let random = SeededRandom::new(7);
    let seeds: Vec<Vec<u8>> =
        (0..50).map(|_| (0..random.below(200) + 1).map(|_| random.u64() as u8).collect()).collect();
    for (name, body) in structured::ALL {
        let (executions, reached) = run(name, body, &seeds, LIVED);
        assert!(executions > 0 && reached > 0, "{name} did nothing");
    }
}

#[test]
fn every_structured_body_has_a_fuzz_target() {
    for (name, _) in structured::ALL {
        let target = format!("{}/fuzz/fuzz_targets/{name}.rs", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&target).unwrap_or_else(|e| panic!("{target}: {e}"));
        assert!(text.contains(&format!("structured::{name}(data)")), "{target}");
    }
}
