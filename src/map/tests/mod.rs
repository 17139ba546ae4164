//! Tests of the map as a whole.

mod cache;
mod history;
mod shape;
mod view;
