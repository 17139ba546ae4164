//! What a part of a run did, in one line that `scripts/soak` puts into its table.

/// What a part of a run did: only what was counted while it happened.
#[derive(Default)]
pub struct Counts {
    pub part: &'static str,
    pub histories: u64,
    /// States after crashes, each of which was judged.
    pub states: u64,
    pub distinct: u64,
    pub failures: u64,
    /// Processes killed, power cuts, and states that were mounted after one.
    pub kills: u64,
    /// Calls made to fail, answers lost, calls that came late, objects damaged.
    pub faults: u64,
}

impl Counts {
    /// One line, with words that `scripts/soak` reads.
    pub fn print(&self) {
        let Counts { part, histories, states, distinct, failures, kills, faults } = self;
        println!(
            "soak: part={part} histories={histories} states={states} distinct={distinct} failures={failures} \
             kills={kills} faults={faults}"
        );
    }
}
