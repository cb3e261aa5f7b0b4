//! The list of keys as a document: `docs/configuration.md` contains it word for word, which a test ensures.

use super::schema::SECTIONS;

/// Every key with its unit, range, default and meaning: one Markdown heading and table for each table of the file.
pub fn reference() -> String {
    let sections = SECTIONS.map(|section| {
        let rows: String = section
            .keys
            .iter()
            .map(|key| format!("| {} |\n", key.row().join(" | ")))
            .collect();
        format!(
            "### `{}`\n\n| key | value, unit | range | default | meaning |\n|---|---|---|---|---|\n{rows}",
            section.header
        )
    });
    sections.join("\n")
}
