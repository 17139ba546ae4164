//! How one segment is being read, and so how much of it to ask for at once. It only counts; it asks nobody.
//!
//! A miss at random gets what was asked for. One that goes on where a fetch ended is reading in order, and gets a window that
//! grows; when the reader is past the middle of a window the next one is wished for. Misses scattered over a segment get
//! more and more, at last the rest of it: files that are read in another order than they were written in still come by
//! few requests.

use super::frames::Span;
use crate::format::store_segment::{FRAME_BYTES, SEGMENT_HEADER_BYTES};
use std::ops::Range;

/// A framed body of the usual size.
const BODY: u64 = (64 << 10) + FRAME_BYTES as u64;
/// Windows of who reads in order, in such bodies: each is as large as all that were before it, and more.
const WINDOWS: [u64; 4] = [BODY, 4 * BODY, 16 * BODY, 64 * BODY];
/// The largest.
pub(super) const WINDOW_MAX: u64 = WINDOWS[3];
/// What may be left out by one who reads in order.
const GAP_MAX: u64 = 4 * BODY;
/// Readers of one segment that are told apart.
const STREAMS_MAX: usize = 4;
/// How large a segment is taken to be until its end was seen.
const SEGMENT_BYTES: u64 = 16 << 20;
/// A segment up to this size is fetched whole.
const SMALL_BYTES: u64 = 16 * BODY;
/// So many scattered misses get what they ask for, as many again a little more.
const SCATTERED: u32 = 4;

/// One that reads on.
#[derive(Clone, Copy, Debug)]
struct Stream {
    /// The newest window.
    start: u64,
    end: u64,
    /// Whether it has come, so that `end` is where a frame starts.
    landed: bool,
    /// Which window comes next; 0 while it is not known that this one reads in order.
    level: usize,
}

impl Stream {
    /// A window that is under way may end in the middle of a body.
    fn goes_on_at(&self, at: u64) -> bool {
        let from = if self.landed { self.end } else { self.end.saturating_sub(BODY).max(self.start) };
        (from..=self.end + GAP_MAX).contains(&at)
    }

    fn is_in_window(&self, at: u64) -> bool {
        (self.start..self.end).contains(&at)
    }
}

/// What is known of the reading of one segment.
#[derive(Debug, Default)]
pub(super) struct Pattern {
    /// The one that was heard of last is the last.
    streams: Vec<Stream>,
    scattered: u32,
    /// The rest was asked for.
    whole: bool,
    /// What came so far: in order, apart from one another.
    known: Vec<Range<u64>>,
    /// Where the bodies of the segment end, once that was seen.
    size: Option<u64>,
}

impl Pattern {
    /// Of a segment that nobody read so far. `level` is how far one has come who read another segment to its end, and may
    /// go on in this one.
    pub fn new(level: Option<usize>) -> Pattern {
        let start = SEGMENT_HEADER_BYTES as u64;
        let streams = level.map(|level| Stream { start, end: start, landed: true, level }).into_iter().collect();
        Pattern { streams, ..Pattern::default() }
    }

    /// What to ask for when `want`, which starts at a frame, is not at hand, and takes `piece` bytes at least.
    pub fn miss(&mut self, want: &Range<u64>, piece: u64) -> Range<u64> {
        self.forget_lost(want.start);
        if let Some(at) = self.streams.iter().position(|stream| stream.goes_on_at(want.start)) {
            let stream = self.streams.remove(at);
            let start = if stream.landed { stream.end } else { want.start };
            return self.open_window(start, want.end, stream.level);
        }
        // Its window is there no more, or did not come.
        if let Some(stream) = self.streams.iter().find(|stream| stream.level > 0 && stream.is_in_window(want.start)) {
            return want.start..stream.end.max(want.end);
        }
        self.scattered += 1;
        if let Some(size) = self.size.filter(|size| *size <= SMALL_BYTES && want.end <= *size) {
            return SEGMENT_HEADER_BYTES as u64..size;
        }
        let len = match self.scattered / SCATTERED {
            0 => piece,
            1 => WINDOWS[1],
            _ => WINDOWS[2],
        };
        let range = want.start..self.clip(want.end, want.start + len);
        self.push(Stream { start: range.start, end: range.end, landed: false, level: 0 });
        range
    }

    /// What is left of a segment of which a quarter came in pieces that lie scattered: gaps that start at frames. Once.
    pub fn rest(&mut self) -> Vec<Range<u64>> {
        let size = self.size.unwrap_or(SEGMENT_BYTES);
        let came: u64 = self.known.iter().map(|range| range.end - range.start).sum();
        if self.whole || self.scattered <= 2 * SCATTERED || came < size / 4 {
            return Vec::new();
        }
        self.whole = true;
        let mut at = SEGMENT_HEADER_BYTES as u64;
        let mut gaps = Vec::new();
        for range in &self.known {
            gaps.push(at..range.start);
            at = range.end;
        }
        gaps.push(at..size);
        gaps.retain(|gap| gap.start < gap.end);
        gaps
    }

    /// `read` was at hand. Says what to fetch ahead, if its reader is past the middle of what it has.
    pub fn pass(&mut self, read: &Range<u64>) -> Option<Range<u64>> {
        let at = self.streams.iter().rposition(|s| s.is_in_window(read.start) || s.goes_on_at(read.start))?;
        let mut stream = self.streams.remove(at);
        if !stream.is_in_window(read.start) {
            stream = Stream { start: read.start, end: read.end, landed: true, ..stream };
        }
        let middle = stream.start + (stream.end - stream.start) / 2;
        let ahead = stream.level > 0 && stream.landed && read.end >= middle && self.size != Some(stream.end);
        if !ahead {
            self.push(stream);
            return None;
        }
        Some(self.open_window(stream.end, stream.end, stream.level)).filter(|window| !window.is_empty())
    }

    /// What was asked for has come; `short` if the segment ended in it.
    pub fn landed(&mut self, asked: &Range<u64>, spans: &[Span], short: bool) {
        for span in spans {
            self.know(span.range());
        }
        // Behind the last body comes the directory, which nobody asks for.
        let good = spans.last().map_or(asked.start, |span| span.range().end);
        if short {
            self.size = Some(good);
        }
        if let Some(stream) = self.streams.iter_mut().find(|s| !s.landed && s.end == asked.end) {
            stream.end = good.max(stream.start);
            stream.landed = true;
        }
    }

    /// How far one has come who has now all there is to the end of the segment.
    pub fn ended(&self, asked: &Range<u64>) -> Option<usize> {
        let size = self.size?;
        let there = |s: &&Stream| s.landed && s.level > 0 && s.end == size && (asked.start..=asked.end).contains(&size);
        self.streams.iter().find(there).map(|stream| stream.level)
    }

    fn open_window(&mut self, start: u64, want_end: u64, level: usize) -> Range<u64> {
        let end = self.clip(want_end, start + WINDOWS[level]);
        self.push(Stream { start, end, landed: false, level: (level + 1).min(WINDOWS.len() - 1) });
        start..end
    }

    fn push(&mut self, stream: Stream) {
        if self.streams.len() == STREAMS_MAX {
            self.streams.remove(0);
        }
        self.streams.push(stream);
    }

    /// No window reaches into what came before, or over the end.
    fn clip(&self, want_end: u64, end: u64) -> u64 {
        let next = self.known.iter().map(|range| range.start).find(|start| *start >= want_end);
        end.min(next.unwrap_or(u64::MAX)).min(self.size.unwrap_or(u64::MAX)).max(want_end)
    }

    /// What had come and is not there is gone; so may be the rest.
    fn forget_lost(&mut self, at: u64) {
        if self.known.iter().any(|range| range.contains(&at)) {
            self.known.clear();
            self.scattered = 0;
            self.whole = false;
        }
    }

    fn know(&mut self, range: Range<u64>) {
        let first = self.known.partition_point(|known| known.end < range.start);
        let last = self.known.partition_point(|known| known.start <= range.end);
        let mut joined = range;
        for old in self.known.drain(first..last) {
            joined = joined.start.min(old.start)..joined.end.max(old.end);
        }
        self.known.insert(first, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const FIRST: u64 = SEGMENT_HEADER_BYTES as u64;

    fn body(n: u64) -> Range<u64> {
        FIRST + n * BODY..FIRST + (n + 1) * BODY
    }

    /// A segment of `bodies` bodies, and what was fetched of it.
    struct Reading {
        pattern: Pattern,
        end: u64,
        there: Vec<Range<u64>>,
        fetches: Vec<Range<u64>>,
    }

    impl Reading {
        fn new(bodies: u64) -> Reading {
            Reading { pattern: Pattern::default(), end: body(bodies).start, there: Vec::new(), fetches: Vec::new() }
        }

        fn has(&self, range: &Range<u64>) -> bool {
            self.there.iter().any(|there| there.start <= range.start && range.end <= there.end)
        }

        fn fetch(&mut self, asked: Range<u64>) {
            let whole = (asked.end.min(self.end) - FIRST) / BODY;
            let span =
                Span { start: asked.start, bytes: vec![0; (FIRST + whole * BODY - asked.start) as usize].into() };
            self.there.push(span.range());
            self.pattern.landed(&asked, &[span], asked.end > self.end);
            self.fetches.push(asked);
        }

        fn read(&mut self, n: u64) {
            if !self.has(&body(n)) {
                let asked = self.pattern.miss(&body(n), 0);
                self.fetch(asked);
                for gap in self.pattern.rest() {
                    self.fetch(gap);
                }
            }
            assert!(self.has(&body(n)), "body {n} after {:?}", self.fetches);
            if let Some(ahead) = self.pattern.pass(&body(n)) {
                self.fetch(ahead);
            }
        }

        fn bodies_of(&self, fetch: usize) -> u64 {
            let asked = &self.fetches[fetch];
            (asked.end - asked.start) / BODY
        }
    }

    #[test]
    fn windows_grow_for_who_reads_in_order_and_are_there_before_they_are_read() {
        let mut reading = Reading::new(256);
        (0..256).for_each(|n| reading.read(n));
        let windows: Vec<u64> = (0..reading.fetches.len()).map(|n| reading.bodies_of(n)).collect();
        assert_eq!(windows[..5], [1, 1, 4, 16, 64]);
        assert!(windows.len() <= 8, "{windows:?}");
        let mut missing = Reading::new(256);
        (0..10).for_each(|n| missing.read(n));
        assert!(missing.has(&body(20)), "the next window comes before it is wanted: {:?}", missing.fetches);
    }

    #[test]
    fn what_is_left_out_now_and_then_does_not_end_an_order() {
        let mut reading = Reading::new(256);
        (0..256).step_by(3).for_each(|n| reading.read(n));
        assert!(reading.fetches.len() <= 10, "{:?}", reading.fetches);
    }

    #[test]
    fn a_miss_at_random_gets_what_it_asked_for() {
        let mut reading = Reading::new(256);
        for n in [100, 7, 200] {
            reading.read(n);
        }
        assert_eq!(reading.fetches, [body(100), body(7), body(200)]);
    }

    #[test]
    fn misses_all_over_a_segment_bring_the_rest_of_it() {
        let mut reading = Reading::new(256);
        (0..256).for_each(|n| reading.read(n * 97 % 256));
        assert!(reading.fetches.len() <= 40, "{} fetches", reading.fetches.len());
        let fetched: u64 = reading.fetches.iter().map(|asked| asked.end.min(reading.end) - asked.start).sum();
        assert!(fetched <= reading.end * 3 / 2, "{fetched} bytes of {}", reading.end);
    }

    #[test]
    fn two_who_read_in_order_are_told_apart() {
        let mut reading = Reading::new(256);
        for n in 0..100 {
            reading.read(n);
            reading.read(128 + n);
        }
        assert!(reading.fetches.len() <= 12, "{:?}", reading.fetches);
    }

    #[test]
    fn a_window_that_did_not_come_is_asked_for_again() {
        let mut reading = Reading::new(256);
        (0..3).for_each(|n| reading.read(n));
        let lost = reading.there.pop().expect("a window");
        assert!(lost.contains(&body(3).start));
        let again = reading.pattern.miss(&body(3), 0);
        assert_eq!(again, body(3).start..lost.end, "its rest, by one request");
    }

    #[test]
    fn a_small_segment_is_fetched_whole_once_its_size_is_known() {
        let mut pattern = Pattern::default();
        let span = Span { start: body(5).start, bytes: Bytes::from(vec![0; 2 * BODY as usize]) };
        pattern.landed(&(body(5).start..body(9).end), &[span], true);
        assert_eq!(pattern.miss(&body(1), 0), FIRST..body(7).start);
    }

    #[test]
    fn reading_on_in_the_next_segment_goes_on_with_large_windows() {
        let mut reading = Reading::new(100);
        (0..100).for_each(|n| reading.read(n));
        let level = reading.pattern.ended(reading.fetches.last().expect("some"));
        let mut next = Pattern::new(level);
        assert_eq!(next.miss(&body(0), 0), FIRST..FIRST + WINDOW_MAX);
        assert_eq!(Pattern::new(level).miss(&body(9), 0), body(9), "only from its start on");
    }
}
