//! Sequences that are kept: each file of `cases/` is one. Its name says what it keeps.

use super::Run;
use super::perform::Look;
use super::step::Step;
use serde::Deserialize;
use std::path::Path;

/// A file of `cases/`.
#[derive(Deserialize)]
struct Case {
    /// Whether it is watched for the times each step changes.
    #[serde(default)]
    times: bool,
    steps: Vec<Step>,
}

/// A sequence as a file of `cases/` holds it.
pub fn text(steps: &[Step], look: Look) -> String {
    let lines: Vec<_> = steps.iter().map(|step| serde_json::to_string(step).expect("steps are data")).collect();
    let times = if look.times { "\"times\": true, " } else { "" };
    format!("{{{times}\"steps\": [\n  {}\n]}}", lines.join(",\n  "))
}

/// Runs every case; what differs.
pub fn run_all(run: &Run) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/differential/cases");
    let mut paths: Vec<_> =
        std::fs::read_dir(&folder).expect("the cases").map(|e| e.expect("an entry").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "there are cases");
    let mut wrong = Vec::new();
    for path in paths {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("a case is text");
        let case: Case = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let found = run.run(&name, &case.steps, Look { times: case.times });
        if !found.is_empty() {
            wrong.push(format!("case {name}:\n{}", found.join("\n")));
        }
    }
    wrong
}
