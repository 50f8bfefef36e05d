package main

import (
	"io"
	"slices"

	"github.com/urfave/cli/v2"
)

// cli puts out "name:usage" for zsh, which it knows by SHELL, and one word a line otherwise. It gets "-" for "--", behind which it knows no
// flags.
const bashCompletion = `_faultd() {
  local cur="${COMP_WORDS[COMP_CWORD]}"
  local words=("${COMP_WORDS[@]:0:COMP_CWORD}")
  case $cur in --) words+=(-) ;; -*) words+=("$cur") ;; esac
  COMPREPLY=($(compgen -W "$(SHELL=bash "${words[@]}" --generate-bash-completion 2>/dev/null)" -- "$cur"))
}
complete -o bashdefault -o default -F _faultd faultd
`

const zshCompletion = `#compdef faultd
_faultd() {
  local -a opts
  local cur="${words[CURRENT]}"
  local -a before=("${(@)words[1,CURRENT-1]}")
  case $cur in --) before+=(-) ;; -*) before+=("$cur") ;; esac
  opts=("${(@f)$(SHELL=zsh "${before[@]}" --generate-bash-completion 2>/dev/null)}")
  if [[ -n "${opts[1]}" ]]; then
    _describe 'faultd' opts
  else
    _files
  fi
}
compdef _faultd faultd
`

func completionCommand() *cli.Command {
	return &cli.Command{
		Name: "completion", Usage: "print a script that makes the shell complete words of faultd", ArgsUsage: "bash|zsh",
		Action: printCompletion,
	}
}

func printCompletion(c *cli.Context) error {
	shell, err := oneWord(c, "SHELL")
	if err != nil {
		return err
	}
	script, ok := map[string]string{"bash": bashCompletion, "zsh": zshCompletion}[shell]
	if !ok {
		return usageErrorf("SHELL: %q is unknown; it must be bash or zsh", shell)
	}
	_, err = io.WriteString(c.App.Writer, script)
	return err
}

// completion says whether a shell asks for completion, and whether it does so behind "--", where there are
// no words to complete.
func completion(args []string) (completing, literal bool) {
	if args[len(args)-1] != "--generate-bash-completion" {
		return false, false
	}
	return true, slices.Contains(args, "--")
}
