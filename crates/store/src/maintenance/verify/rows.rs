//! Every row of every table decodes.

use super::{Finding, Verifier};
use crate::{Error, maintenance::pages::Pages, tables};

impl Verifier<'_> {
    pub(super) async fn check_rows(&mut self) -> Result<(), Error> {
        self.begin("rows");
        for table in tables::ALL {
            let mut pages = Pages::of(table.id);
            while let Some(rows) = pages.next(self.read()).await? {
                for (key, value) in &rows {
                    if let Err(reason) = (table.check)(key, value) {
                        let problem = format!("cannot be read: {reason}");
                        self.record(Finding { table: table.name, key: key.to_vec(), problem });
                    }
                }
                self.report.rows += rows.len() as u64;
                self.advance(rows.len());
            }
        }
        Ok(())
    }
}
