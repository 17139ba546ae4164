//! Trouble that lasts, as people are told of it: when it begins, now and then while it lasts, and when it is over.

use std::time::Duration;

/// While trouble lasts, or comes back, it is told at most this often.
const TOLD_EVERY: Duration = Duration::from_secs(30);

/// One kind of trouble.
#[derive(Debug, Default)]
pub struct Trouble {
    since: Option<Duration>,
    told_at: Option<Duration>,
    /// What lasts now was told.
    told: bool,
}

impl Trouble {
    /// It is there, or still there. Whether to tell.
    pub fn is_there(&mut self, now: Duration) -> bool {
        self.since.get_or_insert(now);
        let tell = self.told_at.is_none_or(|told_at| now.saturating_sub(told_at) >= TOLD_EVERY);
        if tell {
            self.told_at = Some(now);
            self.told = true;
        }
        tell
    }

    /// It is over, or was not there. Returns how long it lasted, if that is to be told: what was not told to begin need not
    /// be told to end.
    pub fn is_over(&mut self, now: Duration) -> Option<Duration> {
        let since = self.since.take()?;
        std::mem::take(&mut self.told).then(|| now.saturating_sub(since))
    }

    /// Whether it lasts.
    pub fn lasts(&self) -> bool {
        self.since.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn trouble_is_told_at_its_begin_every_half_minute_and_at_its_end() {
        let mut trouble = Trouble::default();
        assert_eq!(trouble.is_over(s(1)), None);
        let told: Vec<u64> = (10..100).filter(|now| trouble.is_there(s(*now))).collect();
        assert_eq!(told, [10, 40, 70]);
        assert_eq!(trouble.is_over(s(100)), Some(s(90)));
        assert_eq!(trouble.is_over(s(101)), None);
    }

    #[test]
    fn trouble_that_comes_and_goes_is_not_told_more_often() {
        let mut trouble = Trouble::default();
        let mut told = (0, 0);
        for now in 0..60 {
            told.0 += u32::from(trouble.is_there(s(now)));
            assert!(trouble.lasts());
            told.1 += u32::from(trouble.is_over(s(now)).is_some());
        }
        assert_eq!(told, (2, 2));
    }
}
