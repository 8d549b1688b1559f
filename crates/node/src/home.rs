//! Which folder is the home.

use std::{collections::BTreeMap, path::PathBuf};

use thiserror::Error;

/// Our database within the data folder.
pub const DATABASE: &str = "perihelion";

/// The home cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no home: pass --home, or set PERIHELION_HOME, CMTHOME or HOME")]
pub struct NoHome;

/// Variables that name the home, the first that is set and not empty counts. The last is one that
/// CometBFT has deprecated.
const VARIABLES: [&str; 4] = ["PERIHELION_HOME", "CMTHOME", "CMT_HOME", "TMHOME"];

/// The home: `--home`, else the first of `PERIHELION_HOME`, `CMTHOME`, `CMT_HOME` and `TMHOME`,
/// else `.cometbft` in the user's folder: the same as CometBFT's, since a home serves both.
///
/// # Errors
/// When nothing of this is set, `HOME` included.
pub fn resolve(
    flag: Option<PathBuf>,
    environment: &BTreeMap<String, String>,
) -> Result<PathBuf, NoHome> {
    let set = |name: &&str| environment.get(*name).filter(|value| !value.is_empty());
    flag.or_else(|| VARIABLES.iter().find_map(set).map(PathBuf::from))
        .or_else(|| set(&"HOME").map(|user| PathBuf::from(user).join(".cometbft")))
        .ok_or(NoHome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flag_then_variables_then_the_folder_of_cometbft() {
        let mut environment = BTreeMap::new();
        assert_eq!(resolve(None, &environment), Err(NoHome));
        for (name, value, home) in [
            ("HOME", "/u", "/u/.cometbft"),
            ("TMHOME", "/t", "/t"),
            ("CMT_HOME", "/c", "/c"),
            ("CMTHOME", "/d", "/d"),
            ("PERIHELION_HOME", "", "/d"),
            ("PERIHELION_HOME", "/p", "/p"),
        ] {
            environment.insert(name.to_owned(), value.to_owned());
            assert_eq!(resolve(None, &environment), Ok(PathBuf::from(home)));
        }
        let flag = Some(PathBuf::from("/f"));
        assert_eq!(resolve(flag, &environment), Ok(PathBuf::from("/f")));
    }
}
