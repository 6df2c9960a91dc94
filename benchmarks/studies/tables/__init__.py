"""The figures of README and docs, from the raw results: nobody types one.

python -m benchmarks.studies.tables            # rewrites what stands between the markers
python -m benchmarks.studies.tables --check    # exit status 1 if that would change anything
"""
