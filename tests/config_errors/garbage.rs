//! Text that is no configuration.

use haechi::config;
use proptest::prelude::*;

use crate::good::GOOD;

proptest! {
    /// Any text has a value or an error, never a panic; places lie in the text.
    #[test]
    fn garbage_is_refused_in_words(text in "[a-z\\[\\]=\"'\n .0-9/@äß#{},-]{0,200}") {
        check_places(&text)?;
    }

    /// A good file with a piece cut out or doubled.
    #[test]
    fn damaged_files_are_refused_in_words(at in 0_usize..600, len in 0_usize..40, double: bool) {
        let at = at.min(GOOD.len());
        let end = (at + len).min(GOOD.len());
        let middle = if double { &GOOD[at..end] } else { "" };
        let text = format!("{}{middle}{middle}{}", &GOOD[..at], &GOOD[end..]);
        check_places(&text)?;
    }
}

fn check_places(text: &str) -> Result<(), TestCaseError> {
    let Err(found) = config::load_text("fw", text) else {
        return Ok(());
    };
    prop_assert!(found.has_errors());
    let lines: Vec<&str> = text.split('\n').collect();
    for finding in found.iter() {
        let line = lines[finding.place.line - 1];
        prop_assert!(finding.place.column <= line.chars().count() + 1, "{finding}");
    }
    Ok(())
}
