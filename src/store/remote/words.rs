//! What a store and the system say, brought into words for one line.

use std::error::Error;

/// No sentence of others is repeated beyond that.
const CHARS_MAX: usize = 240;

/// The store's name for what is wrong, and its words: `<Code>` and `<Message>` of an answer that says no. Either may be empty.
pub fn words_of(answer: &[u8]) -> (String, String) {
    let text = String::from_utf8_lossy(answer);
    let element = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(inside, _)| one_line(&plain(inside)))
    };
    let (code, message) = (element("Code"), element("Message"));
    match (code, message) {
        // A gateway's page, or a service with another language: its first words will do, if they are words.
        (None, None) if !text.trim_start().starts_with('<') => (String::new(), one_line(&text)),
        (code, message) => (code.unwrap_or_default(), message.unwrap_or_default()),
    }
}

fn plain(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'").replace("&amp;", "&")
}

/// The same words on one line, not too many of them, and without an end.
pub fn one_line(text: &str) -> String {
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()).collect();
    let line: String = words.join(" ").chars().take(CHARS_MAX).collect();
    line.trim_end_matches('.').to_owned()
}

/// The words of what lies at the bottom of an error.
pub fn deepest(error: &(dyn Error + 'static)) -> String {
    error.source().map_or_else(|| error.to_string(), deepest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_says_no_is_understood() {
        let said = |text: &str| words_of(text.as_bytes());
        let pair = |code: &str, words: &str| (code.to_owned(), words.to_owned());
        let xml = "<?xml version=\"1.0\"?>\n<Error><Code>AccessDenied</Code><Message>Access\n Denied &amp; so on.</Message></Error>";
        assert_eq!(said(xml), pair("AccessDenied", "Access Denied & so on"));
        assert_eq!(said("<Error><Code>X</Code></Error>"), pair("X", ""));
        assert_eq!(said("slow\ndown\u{7}"), pair("", "slow down"));
        assert_eq!(said("<html><body>502</body></html>"), pair("", ""));
        assert_eq!(said(""), pair("", ""));
        assert_eq!(words_of(&[0xFF; 1000]).1.chars().count(), CHARS_MAX);
    }
}
