"""Where along rays to look: estimators under nerfacc's names."""
