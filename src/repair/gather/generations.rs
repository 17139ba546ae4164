//! The newest generation in the store, read around whatever is damaged, missing or foreign in it, and the numbers that must be won
//! so that nobody goes on behind it.
//!
//! **Which numbers.** A writer stands at the first number behind those it has seen taken. Where all numbers of the newest
//! generation are taken and the last of them can be read, that number is known, and a closing object there fences it, as in any
//! takeover. Else
//!
//! - a number that is missing may be where a walk ends, and where somebody wins this generation who then owns the next one; a last
//!   object that cannot be read may be the closing object of somebody who does. Neither publishes anything before number 0 of
//!   the next generation. So that number is won too, and the repair's base goes one generation further, with an epoch of its own.
//! - an object that cannot be read may be foreign, and then the writer stands before it. So the first free number behind
//!   every run of numbers that ends at the last readable one or later is won.
//!
//! A number that is damaged is taken; nobody wins it.

mod listing;
mod reading;

pub(super) use listing::{Listing, list};
pub(super) use reading::{Header, Kind, Published, join, read_generations};
