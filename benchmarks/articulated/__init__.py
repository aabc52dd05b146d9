"""Videos of articulated objects whose parts, joints and motion are known: what REACTO is measured on."""
