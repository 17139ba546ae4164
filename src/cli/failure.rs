//! Why a command failed: one sentence for people, one exit code for scripts.

use super::output;
use std::fmt::Display;
use std::process::ExitCode;

/// What every command returns.
pub type Outcome = Result<(), Failure>;

const USAGE: u8 = 2;

/// A command that did not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    sentence: String,
    code: u8,
    said: bool,
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for Failure {}

impl Failure {
    /// The operation failed, or damage was found: exit code 1.
    pub fn failed(sentence: impl Display) -> Failure {
        Failure { sentence: sentence.to_string(), code: 1, said: false }
    }

    /// The command line asks for something that cannot be: exit code 2.
    pub fn usage(sentence: impl Display) -> Failure {
        Failure { sentence: sentence.to_string(), code: USAGE, said: false }
    }

    /// The same, with other words in the sentence where it has these.
    pub fn saying(self, words: &str, other: &str) -> Failure {
        Failure { sentence: self.sentence.replace(words, other), ..self }
    }

    /// Somebody else has been told the sentence; only the exit code is left to give.
    pub fn said(self) -> Failure {
        Failure { said: true, ..self }
    }

    /// The exit code and the sentence as one line, to be sent to the command that shows it.
    pub fn to_line(&self) -> String {
        format!("{} {}", self.code, self.sentence.replace('\n', " "))
    }

    /// What [`Failure::to_line`] made.
    pub fn from_line(line: &str) -> Failure {
        match line.split_once(' ').map(|(code, sentence)| (code.parse(), sentence)) {
            Some((Ok(code), sentence)) => Failure { code, ..Failure::failed(sentence) },
            _ => Failure::failed(line),
        }
    }

    /// The sentence, without the program's name before it.
    pub fn sentence(&self) -> &str {
        &self.sentence
    }

    /// As [`Failure::report`], with the exit code that mount(8) expects of a helper.
    pub fn report_to_mount(self) -> ExitCode {
        let code = if self.code == USAGE { 1 } else { 32 };
        Failure { code, ..self }.report()
    }

    /// Says the sentence on standard error and gives the exit code.
    pub fn report(self) -> ExitCode {
        if !self.said {
            output::note(format_args!("skylog: {}", self.sentence));
        }
        ExitCode::from(self.code)
    }
}
