//! What is left of a generation that has ended. The rule and its proof are in `docs/fence.md`.

use crate::base::canary::{self, Canary};
use crate::format::names;
use crate::format::publication::Position;

/// The objects of a generation that may be deleted once a later one has a base: all but its number 0, which tells who finds a gap
/// in the generation before that this one is there; its closing object; and the number before that, which a writer that was
/// paused may still try to create.
pub fn deletable(closing: Position) -> Vec<String> {
    let kept = |rule: Canary| !canary::removed(rule);
    let stays = |number: u64| match number {
        0 => kept(Canary::FirstNumberStays),
        last if last == closing.number => kept(Canary::ClosingStays),
        last if last + 1 == closing.number => kept(Canary::LastNumberStays),
        _ => false,
    };
    let gone = (0..=closing.number).filter(|number| !stays(*number));
    gone.map(|number| names::publication(closing.generation, number)).collect()
}
