"""Error rates of decision rules, imgbench's and other tools', on recorded processes and on models of noise."""
